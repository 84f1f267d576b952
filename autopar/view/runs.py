"""Cuts a graph into runs of nodes that stand one after the other and belong together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

__all__ = ["runs_of"]


def runs_of(modules: Sequence[str], *, most: int) -> list[tuple[str, range]]:
    """At most ``most`` runs, each with its module and the positions of its nodes.

    While there is room every node is a run of its own. Then neighbours of one module are put
    together, then those of one module further out, and at last any. Since runs follow the order of
    execution, edges between them never form a cycle.

    Args:
        modules: the module of each node, in the order in which the graph runs them.
        most: the number of runs that fit.

    Example:
        >>> runs_of(["a.x", "a.x", "a.y", "b"], most=3)
        [('a.x', range(0, 2)), ('a.y', range(2, 3)), ('b', range(3, 4))]
        >>> runs_of(["a.x", "a.x", "a.y", "b"], most=2)
        [('a', range(0, 3)), ('b', range(3, 4))]
    """
    if len(modules) <= most:
        return [(module, range(index, index + 1)) for index, module in enumerate(modules)]
    for depth in range(max(module.count(".") for module in modules) + 1, 0, -1):
        found = _runs([".".join(module.split(".")[:depth]) for module in modules])
        if len(found) <= most:
            return found
    size = -(-len(modules) // most)
    return [("", range(start, min(start + size, len(modules)))) for start in range(0, len(modules), size)]


def _runs(keys: Sequence[str]) -> list[tuple[str, range]]:
    found, start = [], 0
    for key, same in itertools.groupby(keys):
        stop = start + len(list(same))
        found.append((key, range(start, stop)))
        start = stop
    return found
