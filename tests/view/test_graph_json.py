"""The graph document: complete, readable by anybody, and refused when it is something else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from autopar.api import trace
from autopar.compilation import compile_program
from autopar.errors import ModelError
from autopar.strategies import DDP, DataParallel
from autopar.view.graph_json import graph_document, program_document, read_document, write_document
from tests.opaque import kept_whole
from tests.view.documents import chain, node


class Net(nn.Module):
    """A linear, an activation, and an LSTM that stays opaque."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(10, 4)
        self.act = nn.ReLU()
        self.rnn = kept_whole(nn.LSTM(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Linear, activation, LSTM."""
        hidden: torch.Tensor = self.rnn(self.act(self.fc(x)))[0]
        return hidden


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The document of Net under ddp."""
    return graph_document(compile_program(Net(), (torch.randn(2, 3, 10),), {}, DDP()), strategy="ddp", world_size=4)


def _by_target(graph: dict[str, Any], target: str) -> dict[str, Any]:
    (found,) = [one for one in graph["nodes"] if one["target"] == target]
    assert isinstance(found, dict)
    return found


def test_head_says_what_it_is(document: dict[str, Any]) -> None:
    """Format, version, model, strategy and ranks stand at the top."""
    facts = {key: document[key] for key in ("format", "version", "model", "strategy", "front_end", "world_size")}
    assert facts == {
        "format": "autopar-graph",
        "version": 2,
        "model": "Net",
        "strategy": "ddp",
        "front_end": "symbolic",
        "world_size": 4,
    }
    assert document["plan"]["buckets"]
    assert [record["name"] for record in document["passes"]][-1] == "lift-parameters"


def test_every_node_has_the_documented_keys(document: dict[str, Any]) -> None:
    """What a hand-made node has is what a real one has."""
    for graph in ("before", "after"):
        for one in document[graph]["nodes"]:
            assert one.keys() == node("x").keys()


def test_operation_is_described(document: dict[str, Any]) -> None:
    """Module, source line, shape, dtype and FLOPs of an opened linear."""
    linear = _by_target(document["after"], "F.linear")
    assert (linear["module"], linear["shape"], linear["dtype"]) == ("fc", [2, 3, 4], "float32")
    assert linear["flops"] == 2 * 6 * 10 * 4
    assert linear["source"].partition(":")[0].endswith("test_graph_json.py")
    assert linear["created_by"] == "inline-modules"
    assert linear["code"].startswith("linear = torch._C._nn.linear(")


def test_opaque_module_is_marked(document: dict[str, Any]) -> None:
    """An opaque call says so, with its class; the bytes of its parameters are with its island."""
    rnn = _by_target(document["after"], "self.rnn")
    assert rnn["opaque"]
    assert rnn["class"] == "LSTM"
    inside = [one for one in document["after"]["nodes"] if one["inside"] == rnn["name"]]
    total = 4 * sum(p.numel() for p in nn.LSTM(4, 4).parameters())
    assert (rnn["param_bytes"], sum(one["param_bytes"] for one in inside)) == (0, total)


def test_edges_name_nodes_of_their_graph(document: dict[str, Any]) -> None:
    """Both ends of each edge are nodes, and the source comes first."""
    for graph in ("before", "after"):
        position = {one["name"]: index for index, one in enumerate(document[graph]["nodes"])}
        assert all(position[source] < position[target] for source, target in document[graph]["edges"])


def test_before_is_filled_from_after(document: dict[str, Any]) -> None:
    """The captured call of a module gets shape and FLOPs of the operations that it became."""
    call = _by_target(document["before"], "self.fc")
    assert call["shape"] == [2, 3, 4]
    assert call["flops"] == 2 * 6 * 10 * 4
    assert call["param_bytes"] == 4 * 44


def test_replicas_show_what_each_runs() -> None:
    """Under data_parallel the graph that each replica runs stands between scatter and gather."""
    model = nn.Sequential(nn.Linear(10, 4), nn.ReLU())
    compilation = compile_program(model, (torch.randn(4, 10),), {}, DataParallel(replicas=2))
    after = graph_document(compilation, strategy="data_parallel")["after"]
    linear = _by_target(after, "F.linear")
    names = [one["name"] for one in after["nodes"]]
    assert linear["name"].startswith("replica.")
    assert names.index("chunks") < names.index(linear["name"]) < names.index("outputs")
    assert ["chunks", "outputs"] in after["edges"]


def test_round_trip() -> None:
    """Written text reads back to an equal document, one node a line."""
    document = chain(["a", "b"])
    text = write_document(document)
    assert read_document(text) == document
    assert json.loads(text) == document
    assert sum('"name": "op0"' in line for line in text.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("{", "is not JSON (line 1"),
        ("[]", "no graph of autopar's"),
        ('{"version": 1, "strategy": "ddp"}', "no graph of autopar's"),
        ('{"format": "autopar-graph", "version": 1}', "has version 1; this autopar reads version 2"),
        ('{"format": "autopar-graph", "version": 2, "model": "M"}', "damaged: it has no strategy"),
    ],
)
def test_other_text_is_refused(text: str, fact: str) -> None:
    """What is no graph document, or one of another version, is named as such, with the mend."""
    with pytest.raises(ModelError) as error:
        read_document(text, name="g.json")
    assert str(error.value).startswith("g.json ")
    assert fact in str(error.value)
    assert error.value.mend


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (
            lambda d: d["after"]["edges"].append(["x", "nowhere"]),
            "has the edge ['x', 'nowhere'], whose",
        ),
        (lambda d: d["after"]["nodes"][0].pop("flops"), "graph 'after' has a node without all its fields"),
        (lambda d: d["before"]["nodes"].append(d["before"]["nodes"][0]), "graph 'before' has two nodes of one name"),
        (lambda d: d["before"].pop("edges"), "graph 'before' has no nodes and edges"),
        (lambda d: d["rates"].update(link=0), "rates are no positive numbers"),
    ],
    ids=["edge", "field", "name", "edges", "rates"],
)
def test_damage_is_named(change: Callable[[dict[str, Any]], object], fact: str) -> None:
    """A document that was edited by hand is refused where it is read, not where it is drawn."""
    document = chain(["a", "b"])
    change(document)
    with pytest.raises(ModelError, match=re.escape(fact)):
        read_document(json.dumps(document))


def test_one_program_has_a_document() -> None:
    """A captured program can be shown before there is a plan."""
    document = program_document(trace(Net(), torch.randn(2, 3, 10)))
    assert (document["plan"], document["strategy"]) == (None, "no strategy")
    assert read_document(write_document(document)) == document


def test_views_do_not_import_torch() -> None:
    """A picture can be made where there is no torch."""
    modules = ["graph_json", "table", "dot", "lanes", "summary", "page", "trace", "layered_svg", "explorer"]
    code = (
        f"import sys; {'; '.join(f'import autopar.view.{name}' for name in modules)}; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
