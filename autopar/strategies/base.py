"""The contract of a strategy, and how a name becomes one."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import nn

from autopar.errors import OptionError, UsageError
from autopar.plugins import Registry
from autopar.runtime.executor import Executor

__all__ = ["Strategy", "register_strategy", "resolve", "strategies"]


@runtime_checkable
class Strategy(Protocol):
    """How parameters are materialised and gradients combined.

    A strategy is a frozen dataclass whose fields are its options.

    Attributes:
        name: as it is written on the command line, such as ``"ddp"``.
    """

    name: ClassVar[str]

    def pipeline(self) -> str:
        """The pass pipeline as text, with the strategy's options in it."""
        ...

    def options(self) -> Mapping[str, Any]:
        """The options that belong in a plan: JSON values that are the same on every rank."""
        ...

    def start(self, model: nn.Module) -> Executor:
        """Prepares the run (process group, devices, equal start) and returns what executes programs."""
        ...


strategies: Registry[type[Strategy]] = Registry("strategy", group="autopar.strategies")


def register_strategy(cls: type[Strategy]) -> type[Strategy]:
    """Makes a strategy known under its ``name`` for this process; usable as a class decorator.

    Raises:
        UsageError: the class lacks part of the contract, or another strategy has that name.
    """
    missing = [part for part in ("name", "pipeline", "options", "start") if not hasattr(cls, part)]
    if missing:
        raise UsageError(
            f"{cls.__qualname__} cannot be registered as a strategy: it has no {', '.join(missing)}.",
            mend="A strategy has name, pipeline(), options() and start(model); see autopar/strategies/base.py.",
        )
    strategies.add(cls.name, cls)
    return cls


def resolve(strategy: str | Strategy, options: Mapping[str, Any]) -> Strategy:
    """A strategy object from what the user gave.

    Args:
        strategy: a registered name or a strategy object.
        options: keyword arguments of the strategy, for a name.

    Raises:
        UnknownNameError: no strategy of that name.
        UsageError: neither a name nor a strategy object.
        OptionError: the strategy does not take an option, or options came with an object.
    """
    if not isinstance(strategy, str):
        if isinstance(strategy, type) or not isinstance(strategy, Strategy):
            given = strategy.__name__ if isinstance(strategy, type) else f"of type {type(strategy).__name__}"
            raise UsageError(
                f"The strategy {given} is neither a name nor a strategy object.",
                mend=f"Give one of {', '.join(map(repr, ['auto', *strategies.names()]))}, or an object such as DDP().",
            )
        if options:
            raise OptionError(
                f"Options {', '.join(sorted(options))} were given beside a strategy object.",
                mend=f"Give them to {type(strategy).__name__}(...) instead.",
            )
        return strategy
    cls = strategies.get(strategy)
    accepted = [name for name in inspect.signature(cls).parameters if name not in ("args", "kwargs")]
    for option in options:
        if option not in accepted:
            near = difflib.get_close_matches(option, accepted, n=1)
            raise OptionError(
                f"Strategy {strategy!r} has no option {option!r}.",
                mend=f"{f'Did you mean {near[0]!r}? ' if near else ''}Its options: {', '.join(accepted) or 'none'}.",
            )
    return cls(**options)
