"""The observers that every pipeline has: how long each pass took, and what it counted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from autopar.passes.base import Pass, PassContext, PassResult
from autopar.passes.observers import PassObserver
from autopar.program import Program

__all__ = ["Counters", "PassRecord", "Timing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRecord:
    """What one pass did: for tables, timings and diffs.

    Attributes:
        name: the pass.
        seconds: wall time, verification not counted.
        changed: whether it said that it changed the program.
        nodes_before, nodes_after: size of the graph, in nodes.
        counters: what it counted (``PassResult.counters``), and ``nodes made`` and ``nodes erased``.
    """

    name: str
    seconds: float
    changed: bool
    nodes_before: int
    nodes_after: int
    counters: Mapping[str, int] = field(default_factory=dict)


class Timing(PassObserver):
    """Measures wall time.

    Attributes:
        seconds: of each pass that came back, in order.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._started = 0.0

    def before_pass(self, one: Pass, program: Program, ctx: PassContext) -> None:
        """Starts the clock."""
        self._started = time.perf_counter()

    def after_pass(self, one: Pass, program: Program, result: PassResult) -> None:
        """Stops it."""
        self.seconds.append(time.perf_counter() - self._started)


class Counters(PassObserver):
    """Counts nodes, and takes what the passes count themselves.

    Attributes:
        counted: of each pass that came back, in order.
        sizes: nodes before and after each.
    """

    def __init__(self) -> None:
        self.counted: list[dict[str, int]] = []
        self.sizes: list[tuple[int, int]] = []
        self._names: Counter[str] = Counter()

    def before_pass(self, one: Pass, program: Program, ctx: PassContext) -> None:
        """Takes down which nodes there are."""
        self._names = Counter(node.name for node in program.graph.nodes)

    def after_pass(self, one: Pass, program: Program, result: PassResult) -> None:
        """Compares."""
        names = Counter(node.name for node in program.graph.nodes)
        changes = {
            "nodes made": (names - self._names).total(),
            "nodes erased": (self._names - names).total(),
        }
        self.counted.append({**{key: count for key, count in changes.items() if count}, **result.counters})
        self.sizes.append((self._names.total(), names.total()))
