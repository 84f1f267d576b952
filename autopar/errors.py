"""Every error that autopar raises on purpose.

An error is three sentences: what happened (with the place), why, and how to mend it. Each class
carries the exit code that the command line ends with when the error reaches it.
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

    >>> print(UsageError("World size 0 was asked for.", mend="Give --world-size 1 or more."))
    World size 0 was asked for. Give --world-size 1 or more.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, what: str, *, why: str = "", mend: str = "") -> None:
        self.what, self.why, self.mend = what, why, mend
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

    exit_code = 2


class UnknownNameError(UsageError):
    """A strategy, pass or option of that name is not known; the nearest names are suggested.

    Args:
        kind: what was looked for, such as ``"pass"``.
        name: the name.
        known: the names that there are.
        unless: a further mend, for a name that is like none of them.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, unless: str = "") -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        near = difflib.get_close_matches(name, self.known, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        more = f" {unless}" if unless and not near else ""
        super().__init__(
            f"There is no {kind} named {name!r}.",
            mend=f"{hint}Known: {', '.join(self.known) or 'none'}.{more}",
        )


class OptionError(UsageError):
    """An option has a value that it cannot have."""


class PipelineError(UsageError):
    """A pipeline cannot be read, or a pass in it lacks what it requires."""


class ModelError(AutoparError):
    """The model, or the file it should come from, cannot be transformed (exit code 3)."""


class CaptureError(ModelError):
    """The model does not run on the inputs that were given, so there is nothing to capture."""


class PassError(AutoparError):
    """A pass failed while it rewrote the program."""


class InvalidProgramError(PassError):
    """The verifier found the program broken after a pass."""


class PlanError(ModelError):
    """A plan cannot be read, is of another version, or was made for another model."""


class CheckpointError(AutoparError):
    """A checkpoint cannot be written or read, or is another model's (exit code 3)."""


class LaunchError(AutoparError):
    """The launch environment, the process group or a device is not as it must be (exit code 4)."""

    exit_code = 4


class RankLostError(LaunchError):
    """Other ranks did not come: they died, were too slow, had fewer batches, or sent something else."""


class RankMismatchError(AutoparError):
    """The ranks do not hold the same model, plan or options; raised alike on every rank."""


class RuntimeStateError(AutoparError):
    """The transformed model was used in a way that would give wrong gradients."""


class CheckFailedError(AutoparError):
    """A check that the user asked for found a difference (exit code 1)."""

    exit_code = 1
