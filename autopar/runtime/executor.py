"""The contract between a strategy and the module that it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from autopar.partitioner.plan import Plan
from autopar.program import Program

__all__ = ["Executor", "Runnable"]

Runnable = Callable[[tuple[Any, ...], dict[str, Any]], Any]


class Executor(Protocol):
    """What ``Strategy.start`` returns: it turns compiled programs into something that can be called.

    Attributes:
        world_size: ranks that share one step.
        replicas: replicas of this process.
    """

    world_size: int
    replicas: int

    def agree_on_plan(self, solve: Callable[[], Plan]) -> Plan:
        """The plan that all ranks use: solved on rank 0 only, and received by the others."""
        ...

    def prepare(self, program: Program) -> Runnable:
        """Makes a lowered program callable with the user's ``(args, kwargs)``."""
        ...

    def close(self) -> None:
        """Undoes what ``prepare`` left on the model: hooks and buffers."""
        ...
