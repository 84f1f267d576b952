"""Every error that autopar raises on purpose.

An error is three sentences: what happened (with the place), why, and how to mend it. Each class
carries the exit code that the command line ends with when the error reaches it, and the code of the
page that ``autopar explain`` prints of it (``autopar.codes``).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar

__all__ = [
    "AutoparError",
    "CaptureError",
    "CheckFailedError",
    "CheckpointError",
    "InvalidProgramError",
    "LaunchError",
    "ModelError",
    "OptionError",
    "PassError",
    "PipelineError",
    "PlanError",
    "RankLostError",
    "RankMismatchError",
    "RuntimeStateError",
    "UnknownNameError",
    "UsageError",
]


class AutoparError(Exception):
    """Base of all of autopar's errors: ``what`` happened, ``why``, and the ``mend``.

    Args:
        what: what happened, with the place.
        why: the reason, where it is not plain.
        mend: what the user can do.
        code: of an error that has a page of its own; else that of the class.

    >>> print(UsageError("World size 0 was asked for.", mend="Give --world-size 1 or more."))
    World size 0 was asked for. Give --world-size 1 or more.
    """

    exit_code: ClassVar[int] = 3
    code: str = ""

    def __init__(self, what: str, *, why: str = "", mend: str = "", code: str | None = None) -> None:
        self.what, self.why, self.mend = what, why, mend
        if code is not None:
            self.code = code
        super().__init__(" ".join(part for part in (what, why, mend) if part))

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.why, self.mend, self.__dict__.copy()))


def _rebuild(cls: type[AutoparError], what: str, why: str, mend: str, state: dict[str, object]) -> AutoparError:
    error = cls.__new__(cls)
    AutoparError.__init__(error, what, why=why, mend=mend)
    error.__dict__.update(state)
    return error


class UsageError(AutoparError):
    """The call itself is off: an option, a file name, a combination (exit code 2)."""

    code = "AP401"
    exit_code = 2


class UnknownNameError(UsageError):
    """A strategy, pass or option of that name is not known; the nearest names are suggested.

    Args:
        kind: what was looked for, such as ``"pass"``.
        name: the name.
        known: the names that there are.
        unless: a further mend, for a name that is like none of them.
        listing: where all names are to be had, in place of their list: there are too many for a line.
    """

    code = "AP402"

    def __init__(self, kind: str, name: str, known: Iterable[str], *, unless: str = "", listing: str = "") -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        near = difflib.get_close_matches(name, self.known, n=3 if listing else 1)
        hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
        more = f" {unless}" if unless and not near else ""
        names = listing or f"Known: {', '.join(self.known) or 'none'}."
        super().__init__(f"There is no {kind} named {name!r}.", mend=f"{hint}{names}{more}")


class OptionError(UsageError):
    """An option has a value that it cannot have."""

    code = "AP403"


class PipelineError(UsageError):
    """A pipeline cannot be read, or a pass in it lacks what it requires."""

    code = "AP242"


class ModelError(AutoparError):
    """The model, or the file it should come from, cannot be transformed (exit code 3)."""

    code = "AP120"


class CaptureError(ModelError):
    """The model does not run on the inputs that were given, so there is nothing to capture."""

    code = "AP121"


class PassError(AutoparError):
    """A pass failed while it rewrote the program."""

    code = "AP240"


class InvalidProgramError(PassError):
    """The verifier found the program broken after a pass."""

    code = "AP241"


class PlanError(ModelError):
    """A plan cannot be read, is of another version, or was made for another model."""

    code = "AP243"


class CheckpointError(AutoparError):
    """A checkpoint cannot be written or read, or is another model's (exit code 3)."""

    code = "AP305"


class LaunchError(AutoparError):
    """The launch environment, the process group or a device is not as it must be (exit code 4)."""

    code = "AP301"
    exit_code = 4


class RankLostError(LaunchError):
    """Other ranks did not come: they died, were too slow, had fewer batches, or sent something else.

    Attributes:
        heartbeats: when each rank began which collective last, as a clause; "" where that is not known.
    """

    code = "AP302"
    heartbeats: str = ""


class RankMismatchError(AutoparError):
    """The ranks do not hold the same model, plan or options; raised alike on every rank."""

    code = "AP303"


class RuntimeStateError(AutoparError):
    """The transformed model was used in a way that would give wrong gradients."""

    code = "AP304"


class CheckFailedError(AutoparError):
    """A check that the user asked for found a difference (exit code 1)."""

    code = "AP404"
    exit_code = 1
