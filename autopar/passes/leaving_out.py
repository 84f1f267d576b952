"""Which passes of a pipeline may be left out, and leaving them out: by name, or all after the first so many."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from autopar.errors import OptionError, PipelineError, UnknownNameError
from autopar.passes.pipeline import PassEntry
from autopar.passes.registry import passes

__all__ = ["LIMIT", "bisect_limit", "optional", "without"]

LIMIT = "AUTOPAR_BISECT_LIMIT"


def optional(entries: Sequence[PassEntry], needed: Collection[str]) -> list[int]:
    """Positions of the passes that may be left out: the program without them is correct, too.

    Those are the passes that the strategy does not have in its own pipeline and whose facts no pass
    that stays builds on.

    Args:
        entries: the pipeline.
        needed: names of the passes that the strategy cannot do without.
    """
    found: list[int] = []
    required: set[str] = set()
    for index in reversed(range(len(entries))):
        one = passes.get(entries[index].name)
        if entries[index].name in needed or required & one.provides:
            required |= one.requires
        else:
            found.append(index)
    return found[::-1]


def without(entries: Sequence[PassEntry], names: Collection[str], needed: Collection[str]) -> tuple[PassEntry, ...]:
    """The pipeline without the passes of these names.

    Raises:
        UnknownNameError: one is not in the pipeline.
        PipelineError: the strategy cannot do without one.
    """
    for name in names:
        if name not in [entry.name for entry in entries]:
            raise UnknownNameError("pass of this pipeline", name, [entry.name for entry in entries])
        if name in needed:
            free = [entries[index].name for index in optional(entries, needed)]
            raise PipelineError(
                f"Pass {name!r} cannot be left out: the strategy builds on it.",
                mend=f"These can: {', '.join(free)}." if free else "No pass of this pipeline can be left out.",
            )
    return tuple(entry for entry in entries if entry.name not in names)


def bisect_limit() -> int | None:
    """What ``AUTOPAR_BISECT_LIMIT`` says, by which ``autopar bisect`` tries parts of a pipeline; None without it.

    Raises:
        OptionError: it is no number of passes.
    """
    text = os.environ.get(LIMIT, "")
    if not text:
        return None
    if not text.isdecimal():
        raise OptionError(f"{LIMIT} is {text!r}.", mend="It must be a number of passes, 0 or more; or unset it.")
    return int(text)
