"""Front ends that did not do: why, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from autopar import compat
from autopar.capture.call import Call
from autopar.capture.opaque import wrap_opaque
from autopar.errors import ModelError
from autopar.program import FrontEnd, Program, Remark, SourceLine

__all__ = ["Fall", "not_done", "said", "whole"]


@dataclass(frozen=True, slots=True)
class Fall:
    """Why a front end does not do.

    Attributes:
        front_end: which one.
        reason: the end of a sentence.
        source: the line that forced it.
    """

    front_end: FrontEnd
    reason: str
    source: SourceLine | None = None


def whole(model: nn.Module, call: Call, falls: Sequence[Fall], front_end: str) -> Program:
    """The last rung, with what kept the model from the others.

    Raises:
        ModelError: another front end was asked for.
    """
    first, *others = falls
    if front_end != "auto":
        name = compat.original_class(model).__name__
        raise ModelError(
            f"The {front_end} front end cannot capture {name}: {first.reason}.",
            mend="Leave the choice to autopar, with capture='auto'.",
            code="AP124",
        )
    program = wrap_opaque(model, call, first.reason, source=first.source)
    program.remarks += map(said, others)
    return program


def not_done(program: Program, deeds: Iterable[str]) -> Iterator[Remark]:
    """What the forward would have done besides computing."""
    for deed in deeds:
        yield Remark(
            code="AP106",
            kind="analysis",
            stage="capture",
            message=f"While {program.name} was captured, its forward ran without what it does besides computing: "
            f"{deed}. The step itself does that, once.",
        )


def said(fall: Fall) -> Remark:
    """That a front end was not taken."""
    return Remark(
        code="AP102",
        kind="analysis",
        stage="capture",
        message=f"The {fall.front_end} front end was not taken: {fall.reason}.",
        source=fall.source,
    )
