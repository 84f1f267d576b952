"""The modules that a recorded run is in, and what is decided about them."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from autopar.capture.values import ValueQuestion
from autopar.program import SourceLine

__all__ = ["Frame", "Refusal", "Rules", "python_streams"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a module stays one call.

    Attributes:
        module: the module.
        reason: the end of a sentence.
        source: the line that forced it.
    """

    module: nn.Module
    reason: str
    source: SourceLine | None


@dataclass(slots=True)
class Frame:
    """A module whose forward is running.

    Attributes:
        path: dotted path of the module.
        module: the module.
        modes: what besides its inputs decided what operations did when it began.
        refusal: why it cannot be nodes of its own; None while it can.
        training, attributes: what it read of modules and baked in.
        questions: values of inputs that its Python code asked for.
        streams: Python's and NumPy's random numbers as its own code left them, where they are followed.
    """

    path: str
    module: nn.Module
    modes: Any
    refusal: Refusal | None = None
    training: dict[nn.Module, bool] = field(default_factory=dict)
    attributes: dict[tuple[nn.Module, str], Any] = field(default_factory=dict)
    questions: list[ValueQuestion] = field(default_factory=list)
    streams: Any = None


class Rules(Protocol):
    """What becomes of the submodules that a model calls."""

    def decide(self, module: nn.Module) -> tuple[bool, str | None]:
        """Whether it is one call whatever its forward does, and for what reason if that is a loss."""
        ...

    def run_whole(
        self, module: nn.Module, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Runs a submodule that is one call."""
        ...

    def before(self, module: nn.Module) -> Any:
        """What to compare with after its forward."""
        ...

    def after(self, module: nn.Module, before: Any) -> str | None:
        """Why its forward cannot be nodes, in view of what it changed; None where it can."""
        ...


def python_streams() -> Any:
    """The state of the generators that no torch function draws from."""
    numpy = sys.modules.get("numpy.random")
    if numpy is None:
        return random.getstate()
    _, keys, *rest = numpy.get_state()
    return random.getstate(), keys.tobytes(), *rest
