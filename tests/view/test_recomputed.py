"""Activation checkpoints in every picture: from a model's regions to marks, and to the predicted time."""

from __future__ import annotations

import copy
import io
import json
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.utils.checkpoint import checkpoint

from autopar.compilation import compile_program
from autopar.strategies import DDP
from autopar.view.dot import dot_text
from autopar.view.explorer import explorer_json
from autopar.view.graph_json import graph_document, read_document, write_document
from autopar.view.lanes import lanes_svg
from autopar.view.layered_svg import layered_svg
from autopar.view.page import page_html
from autopar.view.predict import predict
from autopar.view.rows import module_rows
from autopar.view.table import print_table


class Net(nn.Module):
    """The middle layer is checkpointed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Three layers."""
        middle: torch.Tensor = checkpoint(self.middle, self.first(x), use_reentrant=False)
        return self.last(middle)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Of the model above, written and read."""
    compilation = compile_program(Net(), (torch.randn(4, 8),), {}, DDP())
    return read_document(write_document(graph_document(compilation, strategy="ddp")))


def table(document: dict[str, Any], width: int) -> str:
    """As a terminal of that width shows it."""
    text = io.StringIO()
    print_table(document, Console(file=text, width=width, force_terminal=True, color_system=None, highlight=False))
    return text.getvalue()


def test_only_what_is_checkpointed_is_marked(document: dict[str, Any]) -> None:
    """Nodes have the name of their region; the other layers have none."""
    after = document["after"]["nodes"]
    marked = {node["module"] for node in after if node["region"] is not None}
    assert marked == {"middle"}
    assert [row.path for row in module_rows(document) if row.recomputed] == ["middle"]


def test_every_picture_says_it(document: dict[str, Any]) -> None:
    """Once for each place, and not at all for a document that knows no regions."""
    plain = copy.deepcopy(document)
    for which in ("before", "after"):
        for node in plain[which]["nodes"]:
            del node["region"]
    shown = {
        "again in backward": (dot_text, layered_svg),
        "· ↻": (lanes_svg,),
        "↻: checkpointed": (lanes_svg,),
    }
    for words, pictures in shown.items():
        for picture in pictures:
            assert picture(document).count(words) == 1
            assert words not in picture(plain)
    assert explorer_json(document).count('"key": "region"') == 2  # before and after
    assert '"key": "region"' not in explorer_json(plain)
    assert table(document, 100).count("(recomputed)") == 1
    assert "(recomputed)" not in table(plain, 100)
    assert max(map(len, table(document, 60).splitlines())) <= 60
    data = json.loads(page_html(document).partition('id="data">')[2].partition("</script>")[0])
    rows = [dict(zip(data["fields"], row, strict=True)) for row in data["after"]["nodes"]]
    assert [data["texts"][row["module"]] for row in rows if row["region"] is not None] == ["middle"]


def test_backward_is_longer_by_a_forward(document: dict[str, Any]) -> None:
    """Of the checkpointed operation alone."""
    step = predict(document)
    forward = {one.operation.node["module"]: one.end - one.start for one in step.forward}
    backward = {one.operation.node["module"]: one.end - one.start for one in step.backward}
    assert forward["middle"] == pytest.approx(forward["last"])
    assert backward["middle"] == pytest.approx(backward["last"] + forward["middle"])
