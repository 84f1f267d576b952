"""The order in which gradients become ready, on DAGs made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx
import pytest

from autopar.partitioner.order import backward_ready_order, unreachable_parameters


def dag(
    ops: Sequence[str], edges: Sequence[tuple[str, str]], parameters: Sequence[str] = ("a", "b", "c", "d")
) -> nx.DiGraph:
    """Operations in forward order, parameters in registration order, and the output."""
    graph = nx.DiGraph()
    graph.add_node("output", kind="output")
    for index, name in enumerate(ops):
        graph.add_node(name, kind="op", index=index)
    for position, name in enumerate(parameters):
        graph.add_node(name, kind="parameter", position=position)
    graph.add_edges_from(edges)
    return graph


def test_chain_comes_in_reverse() -> None:
    """The last layer's gradients are ready first."""
    edges = [("a", "f"), ("f", "g"), ("b", "g"), ("g", "output")]
    assert backward_ready_order(dag(["f", "g"], edges)) == ["b", "a"]


def test_parameters_of_one_operation_come_in_reverse_registration_order() -> None:
    """As autograd hands out a linear layer's bias before its weight."""
    assert backward_ready_order(dag(["f"], [("a", "f"), ("b", "f"), ("f", "output")])) == ["b", "a"]


def test_shared_parameter_waits_for_its_first_use() -> None:
    """Its gradient is complete when all its uses have run backward."""
    edges = [("a", "f"), ("f", "g"), ("b", "g"), ("g", "h"), ("a", "h"), ("h", "output")]
    assert backward_ready_order(dag(["f", "g", "h"], edges)) == ["b", "a"]


def test_of_two_branches_the_later_one_runs_first() -> None:
    """Autograd prefers what was created last in forward."""
    edges = [("a", "f"), ("b", "g"), ("f", "sum"), ("g", "sum"), ("sum", "output")]
    assert backward_ready_order(dag(["f", "g", "sum"], edges)) == ["b", "a"]
    assert backward_ready_order(dag(["g", "f", "sum"], edges)) == ["a", "b"]


def test_residual_waits_for_its_branch() -> None:
    """The operation before the fork runs when both ways have come back."""
    edges = [("a", "f"), ("f", "g"), ("b", "g"), ("f", "sum"), ("g", "sum"), ("sum", "output")]
    assert backward_ready_order(dag(["f", "g", "sum"], edges)) == ["b", "a"]


def test_parameter_that_is_an_output_itself() -> None:
    """It is ready at once."""
    assert backward_ready_order(dag(["f"], [("a", "output"), ("b", "f"), ("f", "output")])) == ["a", "b"]


def test_dead_branch_delays_nothing() -> None:
    """A use that no output depends on never runs backward."""
    edges = [("a", "f"), ("f", "output"), ("a", "dead"), ("b", "dead")]
    assert backward_ready_order(dag(["f", "dead"], edges)) == ["a"]


def test_unreachable_parameters_come_in_registration_order() -> None:
    """No path leads from them to the output."""
    edges = [("b", "f"), ("f", "output"), ("d", "dead")]
    assert unreachable_parameters(dag(["f", "dead"], edges)) == ["a", "c", "d"]


def test_a_dataflow_has_one_output() -> None:
    """Anything else is a defect of ours."""
    graph = nx.DiGraph()
    with pytest.raises(AssertionError, match="one output node"):
        backward_ready_order(graph)
