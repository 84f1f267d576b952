"""Instruments that watch a pipeline run: they see every pass and every program, and change nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from autopar.passes.base import Pass, PassContext, PassResult
from autopar.program import Program

__all__ = ["PassObserver", "ambient", "observing"]


class PassObserver:
    """What may be told of a pipeline; override what you want to know.

    A pass leads to ``before_pass``, ``after_pass`` and ``verified``, or to ``failed`` in the place of what did not
    come. With several observers, ``after_pass`` goes the other way round than ``before_pass``, so that each encloses
    those behind it.

    Example:
        >>> import autopar, torch
        >>> class Names(autopar.PassObserver):
        ...     def verified(self, one, program):
        ...         print(one.name, len(program.graph.nodes))
        >>> with autopar.observing(Names()):
        ...     program = autopar.trace(torch.nn.Linear(4, 2), torch.ones(1, 4))
        inline-modules 5
        shapes 5
    """

    def before_pass(self, one: Pass, program: Program, ctx: PassContext) -> None:
        """A pass is about to run; it may rewrite this very program."""

    def after_pass(self, one: Pass, program: Program, result: PassResult) -> None:
        """It came back, and this is the program now; nobody has verified it yet."""

    def verified(self, one: Pass, program: Program) -> None:
        """The program holds to every rule."""

    def failed(self, one: Pass, error: Exception) -> None:
        """The pass raised this, returned what is no result, or left a broken program."""


_ambient: ContextVar[tuple[PassObserver, ...]] = ContextVar("_ambient", default=())


@contextmanager
def observing(*observers: PassObserver) -> Iterator[None]:
    """Within this block, in this thread, the observers see every pipeline that runs.

    ``autopar.trace`` runs one; ``parallelize`` does where it is given ``example_inputs``, else the
    first call of the model does.
    """
    token = _ambient.set((*_ambient.get(), *observers))
    try:
        yield
    finally:
        _ambient.reset(token)


def ambient() -> Sequence[PassObserver]:
    """The observers of all blocks around."""
    return _ambient.get()
