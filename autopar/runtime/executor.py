"""The contract between a strategy and the module that it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from autopar.compilation import Compilation
    from autopar.partitioner.plan import Plan
    from autopar.partitioner.rates import Rates
    from autopar.program import Program

__all__ = ["Attempt", "Executor", "Runnable"]

Runnable = Callable[[tuple[Any, ...], dict[str, Any]], Any]


class Attempt(Protocol):
    """Compiles on this rank."""

    def __call__(
        self, plan: Plan | None, rates: Rates | None = None, captured: Program | None = None, /
    ) -> Compilation:
        """What the model became.

        Args:
            plan: what to follow; None solves one.
            rates: speeds to solve it for.
            captured: the program that an earlier attempt captured.
        """
        ...


class Executor(Protocol):
    """What ``Strategy.start`` returns: it turns compiled programs into something that can be called.

    Attributes:
        world_size: ranks that share one step.
        replicas: replicas in this process.
        synchronise: False while gradients are only accumulated locally.
    """

    world_size: int
    replicas: int
    synchronise: bool

    def agree(self, attempt: Attempt) -> Compilation:
        """The compilation that all ranks follow."""
        ...

    def prepare(self, program: Program) -> Runnable:
        """Makes a lowered program callable with the user's ``(args, kwargs)``."""
        ...

    def follow(self, plan: Plan, forward: Runnable) -> Runnable:
        """Makes a function callable whose ``autopar.ops`` calls carry out the plan (an emitted file)."""
        ...

    def eager(self, forward: Runnable) -> Runnable:
        """Makes the user's own forward callable with the same effect, for calls that no program fits."""
        ...

    def traced(self) -> Runnable | None:
        """What dynamo can follow in place of ``prepare``'s callable, with the same effect; called within its trace.

        None where there is nothing of the kind now; the call then runs outside of the graph.
        """
        ...

    def prepare_traced(self) -> None:
        """Makes ready what ``traced`` needs and dynamo cannot follow."""
        ...

    def close(self) -> None:
        """Undoes what ``prepare`` left on the model: hooks and buffers."""
        ...
