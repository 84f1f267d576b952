"""In which order the gradients of a program become ready in backward.

The dataflow is a ``networkx.DiGraph`` whose nodes carry ``kind``:

- ``"op"``: an operation, with ``index``, its position in forward (an int);
- ``"parameter"``: a trainable parameter, with ``position``, its place in registration order;
- ``"output"``: the single sink that every output of the program flows into.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING

import networkx as nx

if TYPE_CHECKING:
    Dataflow = nx.DiGraph[str]

__all__ = ["backward_ready_order", "observed_order", "unreachable_parameters"]


def backward_ready_order(dag: Dataflow) -> list[str]:
    """Parameters in the order in which autograd finishes their gradients.

    Plays autograd's scheduler: an operation's backward may run when those of all its consumers
    have, and among the ones that may, the one created last in forward goes first. A parameter's
    gradient is complete when the last of its consumers has run. Parameters that one operation
    completes together come in reverse registration order.

    Args:
        dag: the dataflow, as this module's docstring describes it.

    Returns:
        Names of the parameters that have a path to the output.

    Example:
        >>> dag = nx.DiGraph()
        >>> dag.add_node("w1", kind="parameter", position=0)
        >>> dag.add_node("w2", kind="parameter", position=1)
        >>> dag.add_node("fc1", kind="op", index=0)
        >>> dag.add_node("fc2", kind="op", index=1)
        >>> dag.add_node("out", kind="output")
        >>> dag.add_edges_from([("w1", "fc1"), ("fc1", "fc2"), ("w2", "fc2"), ("fc2", "out")])
        >>> backward_ready_order(dag)
        ['w2', 'w1']
    """
    output = _output(dag)
    live = nx.ancestors(dag, output) | {output}
    waiting = {node: sum(1 for user in dag.successors(node) if user in live) for node in live}
    order: list[str] = []
    ready: list[tuple[float, str]] = [(float("-inf"), output)]
    while ready:
        _, node = heapq.heappop(ready)
        finished = []
        for source in dag.predecessors(node):
            waiting[source] -= 1
            if waiting[source]:
                continue
            if dag.nodes[source]["kind"] == "parameter":
                finished.append(source)
            else:
                heapq.heappush(ready, (-dag.nodes[source]["index"], source))
        order += sorted(finished, key=lambda name: -dag.nodes[name]["position"])
    return order


def observed_order(expected: Sequence[str], arrivals: Sequence[str]) -> list[str]:
    """The order in which gradients were seen to arrive, with the others where they were expected.

    What did not arrive in the step that was watched (a layer that is skipped at random) may do so in
    another one: it comes right after what it was expected after.

    Args:
        expected: parameters that may get a gradient, see ``backward_ready_order``.
        arrivals: those that got one, in order.

    Example:
        >>> observed_order(["w4", "w3", "w2", "w1"], ["w4", "w1", "w2"])
        ['w4', 'w3', 'w1', 'w2']
    """
    order, seen = list(arrivals), set(arrivals)
    for before, name in zip([None, *expected], expected, strict=False):
        if name not in seen:
            order.insert(0 if before is None else order.index(before) + 1, name)
    return order


def unreachable_parameters(dag: Dataflow) -> list[str]:
    """Parameters from which no path leads to the output, in registration order: they get no gradient."""
    live = nx.ancestors(dag, _output(dag))
    dead = [name for name in _of_kind(dag, "parameter") if name not in live]
    return sorted(dead, key=lambda name: dag.nodes[name]["position"])


def _output(dag: Dataflow) -> str:
    sinks = _of_kind(dag, "output")
    assert len(sinks) == 1, f"a dataflow has one output node, this one has {sinks}"
    return sinks[0]


def _of_kind(dag: Dataflow, kind: str) -> list[str]:
    return [node for node, attributes in dag.nodes.items() if attributes["kind"] == kind]
