"""The contract of a pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from autopar.partitioner.plan import Plan
from autopar.partitioner.rates import Rates
from autopar.program import Program, Remark

__all__ = ["Pass", "PassContext", "PassResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassContext:
    """What a pass may know besides the program.

    Attributes:
        strategy: name of the strategy that the pipeline serves.
        pipeline: the whole pipeline as text.
        options: the strategy's options, JSON values only.
        plan: a plan that was made already (on rank 0, or in a file); passes that would decide take
            their decision from it instead.
        world_size: number of ranks, where it is known at compile time.
        replicas: number of in-process replicas, for strategies that have them.
        rates: how fast the ranks compute and send, where it is known.
    """

    strategy: str = "ddp"
    pipeline: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    plan: Plan | None = None
    world_size: int | None = None
    replicas: int = 1
    rates: Rates | None = None


@dataclass(frozen=True, slots=True)
class PassResult:
    """What a pass returns: the program, whether it changed, what is to be said, and what it counted."""

    program: Program
    changed: bool
    remarks: tuple[Remark, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)


@runtime_checkable
class Pass(Protocol):
    """A rewrite or analysis of the Program.

    A pass is a class whose constructor takes the options that its pipeline entry gives, by keyword
    (a dataclass is the shortest way to write one).

    Attributes:
        name: as it is written in a pipeline, such as ``"ddp-sync"``.
        requires: facts that must be established before it runs, such as ``{"shapes"}``.
        provides: facts that hold after it.
        on_islands: where it is there and true, the pass runs over each island of the program as well
            (``Program.islands``); without it they stay as they are.
    """

    name: str
    requires: frozenset[str]
    provides: frozenset[str]

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Rewrites ``program`` in place or makes a new one, and says what it did."""
        ...
