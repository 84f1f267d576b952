"""Which nodes write in place, and to whose memory."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import fx

from autopar.capture.aliasing import base_of, written_by


@pytest.fixture
def graph() -> fx.Graph:
    """A graph with the inputs x and y."""
    graph = fx.Graph()
    graph.placeholder("x")
    graph.placeholder("y")
    return graph


@pytest.mark.parametrize(
    ("op", "target", "kwargs"),
    [
        ("call_method", "add_", {}),
        ("call_method", "copy_", {}),
        ("call_function", operator.iadd, {}),
        ("call_function", operator.setitem, {}),
        ("call_function", torch.relu_, {}),
        ("call_function", F.relu, {"inplace": True}),
    ],
)
def test_in_place_operations_write_to_their_first_argument(
    graph: fx.Graph, op: str, target: Any, kwargs: dict[str, Any]
) -> None:
    """Whatever their notation."""
    x, y = graph.nodes
    assert written_by(graph.create_node(op, target, (x, y), kwargs)) == [x]


@pytest.mark.parametrize(
    ("op", "target"), [("call_method", "add"), ("call_method", "__add__"), ("call_function", torch.add)]
)
def test_other_operations_write_to_nothing(graph: fx.Graph, op: str, target: Any) -> None:
    """A dunder is no in-place method."""
    assert written_by(graph.create_node(op, target, tuple(graph.nodes))) == []


def test_out_is_written_to(graph: fx.Graph) -> None:
    """By keyword, as torch demands."""
    x, y = graph.nodes
    assert written_by(graph.call_function(torch.add, (x, x), {"out": y})) == [y]


def test_batch_norm_writes_to_its_statistics(graph: fx.Graph) -> None:
    """Running mean and variance, by position or keyword, and not to its input."""
    x, y = graph.nodes
    assert written_by(graph.call_function(F.batch_norm, (x, y, y))) == [y, y]
    assert written_by(graph.call_function(F.batch_norm, (x,), {"running_mean": y, "running_var": None})) == [y]


def test_views_lead_back_to_their_memory(graph: fx.Graph) -> None:
    """Through views of views and through what in-place operations return."""
    x, _ = graph.nodes
    view = graph.call_method("view", (x, -1))
    part = graph.call_function(operator.getitem, (view, 0))
    written = graph.call_method("add_", (part, 1))
    data = graph.call_function(getattr, (written, "data"))
    assert base_of(data) is x


def test_results_have_their_own_memory(graph: fx.Graph) -> None:
    """An addition makes a new tensor; a batch norm does, too."""
    x, y = graph.nodes
    total = graph.call_function(torch.add, (x, y))
    assert base_of(total) is total
    norm = graph.call_function(F.batch_norm, (x, y, y))
    assert base_of(norm) is norm
