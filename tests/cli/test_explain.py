"""``autopar explain``: what stays opaque, the line that forced it, and on what the graph rests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command

BRANCHES = """
import torch
from torch import nn


class Mixture(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.expert = nn.Linear(4, 2), nn.Linear(4, 4)

    def forward(self, x):
        return self.expert(x) if self.gate(x).sum() < 1e9 else x


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.mixture, self.head = Mixture(), nn.Linear(4, 4)

    def forward(self, x):
        if x.shape[0] > 512:
            x = x[:512]
        return self.head(self.mixture(x))
"""


@pytest.fixture
def mixture(tmp_path: Path) -> str:
    """A file with a model that has a data-dependent branch."""
    (tmp_path / "mixture.py").write_text(BRANCHES)
    return f"{tmp_path / 'mixture.py'}:Net"


def test_an_opaque_piece_with_its_line_and_mend(command: Command, mixture: str) -> None:
    """The line of source is shown, and not only its number."""
    ended = command("explain", mixture, "--input", "2x4")
    assert ended.code == 0, ended.err
    assert "Net: 100% of its parameter bytes" in ended.out
    assert "mixture (Mixture) stays one opaque call: its Python control flow depends on a tensor; " in ended.out
    assert "2 islands inside hold 100.0% of its bytes. 120 B" in ended.out
    assert "mixture.py:12: return self.expert(x) if self.gate(x).sum() < 1e9 else x" in ended.out
    assert "Use torch.where" in ended.out


def test_what_the_graph_rests_on(command: Command, mixture: str) -> None:
    """Conditions are written as Python would."""
    assert "The graph is for calls in which x.shape[0] <= 512." in command("explain", mixture, "--input", "2x4").out


def test_json(command: Command, mixture: str) -> None:
    """The same as data."""
    data = command("explain", mixture, "--input", "2x4", "--json").json
    assert [one["module"] for one in data["opaque"]] == ["mixture"]
    assert data["version"] == 1


def test_nothing_to_explain(command: Command, tmp_path: Path) -> None:
    """A model that is operations throughout."""
    file = tmp_path / "plain.py"
    file.write_text("from torch import nn\n\nmodel = nn.Linear(4, 2)\n")
    assert "Nothing stays opaque." in command("explain", str(file), "--input", "2x4").out


def test_what_transform_wrote(command: Command, mixture: str) -> None:
    """The same as of the model's file, without the model."""
    usual = ("--missed", "mixture", "--passed", "bucket", "--analysis", "nothing")
    assert command("transform", mixture, "--input", "2x4").code == 0
    ended = command("explain", "out", *usual)
    assert ended.out == command("explain", mixture, "--input", "2x4", *usual).out
    assert "missed[AP103] capture: mixture (Mixture) stays one opaque call" in ended.out
    assert "mixture.py:12: return self.expert(x)" in ended.out
    assert "passed[AP208] bucket:" in ended.out
    assert "No remark matches." in command("explain", "out", "--missed", "nothing").out
    Path("out/remarks.jsonl").unlink()
    assert "out/remarks.jsonl cannot be read" in command("explain", "out").err


def test_code(command: Command) -> None:
    """Its page, in small letters, too; and as data."""
    assert command("explain", "ap103").out.startswith("# AP103: a module stays one opaque call\n")
    assert command("explain", "AP103", "--json").json["kind"] == "missed"
    ended = command("explain", "AP902")
    assert (ended.code, "Did you mean 'AP901'" in ended.err) == (2, True)
