"""Islands in the graph document: operations that run inside of an opaque call, counted once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from rich.console import Console

from autopar.compilation import compile_program
from autopar.strategies import DDP
from autopar.view.graph_json import graph_document, read_document, write_document
from autopar.view.operations import operations
from autopar.view.summary import summary
from autopar.view.table import print_table
from tests.capture.islands import Model, Nested


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """A loop inside of an island inside of a branch, through JSON."""
    compilation = compile_program(Model(Nested()), (torch.randn(3, 4),), {}, DDP())
    return read_document(write_document(graph_document(compilation, strategy="ddp")))


def found(document: dict[str, Any], target: str, module: str) -> dict[str, Any]:
    """The only node with a target in a module."""
    (node,) = [one for one in document["after"]["nodes"] if (one["target"], one["module"]) == (target, module)]
    assert isinstance(node, dict)
    return node


def test_operations_of_an_island_are_inside_of_their_call(document: dict[str, Any]) -> None:
    """Also where an island has one of its own; paths are those of the whole model."""
    outer = found(document, "self.part", "part")
    inner = found(document, "self.part.inner.1", "part.inner.1")
    assert outer["inside"] is None
    assert found(document, "F.linear", "part.inner.0.fc")["inside"] == outer["name"]
    assert inner["inside"] == outer["name"]
    assert found(document, "F.linear", "part.inner.1.blocks.0.fc")["inside"] == inner["name"]


def test_everything_counts_once(document: dict[str, Any]) -> None:
    """FLOPs are those of the plain model, and only the loop's own scale is not at operation level."""
    figures = summary(document)
    assert figures["flops"] == 2 * 3 * (4 * 6 + 6 * 6 + 6 * 6 + 6 * 2)
    assert figures["flops_unknown"] == []
    total = 4 * sum(parameter.numel() for parameter in Model(Nested()).parameters())
    assert figures["operation_level"] == 1 - 24 / total


def test_an_operation_of_an_island_has_its_bucket(document: dict[str, Any]) -> None:
    """The one in which hooks send the gradient of the parameter that it reads."""
    (plan,) = [one["index"] for one in document["plan"]["buckets"] if "part.inner.0.fc.weight" in one["parameters"]]
    (linear,) = [one for one in operations(document) if one.node["module"] == "part.inner.0.fc"]
    assert linear.buckets == (plan,)


def test_the_table_shows_the_depth(document: dict[str, Any]) -> None:
    """What runs in a call stands before it, marked."""
    console = Console(width=200)
    with console.capture() as captured:
        print_table(document, console)
    lines = captured.get().splitlines()
    (inner,) = [line for line in lines if line.startswith("part.inner.1.blocks.0.fc")]
    assert "· · F.linear" in inner
    assert "· ValueLoop (opaque)" in captured.get()
