"""What the control blocks tell when a collective fails: what each rank sends, when it began, why it left."""

from __future__ import annotations

import time
from collections.abc import Sequence

from autopar.errors import RankMismatchError
from autopar.lost_ranks import Heartbeat
from autopar.shm.layout import ELEMENT_TYPES, MOVED_TYPES, RING, Control, Descriptor, Kind, Operator

__all__ = ["describe", "heartbeats", "mismatch", "say_farewell"]

_DTYPE_NAMES = {number: str(dtype).removeprefix("torch.") for dtype, number in {**ELEMENT_TYPES, **MOVED_TYPES}.items()}
_REDUCING = (Kind.ALL_REDUCE, Kind.REDUCE_SCATTER)


def heartbeats(controls: Sequence[Control]) -> list[Heartbeat]:
    """What each rank began last, and how long ago."""
    now = time.monotonic()
    return [
        Heartbeat(
            rank,
            now - control.heartbeat if control.posted else None,
            control.ring[control.posted % RING].label.decode(errors="replace"),
        )
        for rank, control in enumerate(controls)
    ]


def mismatch(posted: list[Descriptor]) -> RankMismatchError:
    """The ranks have posted different operations; the text is the same on all of them.

    Args:
        posted: what each rank has posted, in rank order.
    """
    first = describe(posted[0])
    odd, other = next((r, text) for r, d in enumerate(posted) if (text := describe(d)) != first)
    return RankMismatchError(
        f"The ranks do not send the same: rank {odd} sends {other}; rank 0 sends {first}.",
        why="What they would receive is a mixture of both.",
        mend="Let every rank run the same collectives in the same order: the same model, branches and steps.",
    )


def describe(what: Descriptor) -> str:
    """One line: label, kind, count and dtype, and what else can differ."""
    kind = Kind(what.kind)
    parts = [what.label.decode(errors="replace")] if what.label else []
    name = kind.name.lower().replace("_", "-")
    if kind in _REDUCING and what.operator != Operator.SUM:
        name += f" ({Operator(what.operator).name.lower()})"
    if kind == Kind.BROADCAST and what.root:
        name += f" from rank {what.root}"
    if what.scale != 1.0:
        name += f" scaled by {what.scale!r}"
    parts.append(name)
    if kind != Kind.BARRIER:
        parts.append(f"{what.count} {_DTYPE_NAMES.get(what.dtype, 'values')}")
    return ", ".join(parts)


def say_farewell(control: Control, reason: str) -> None:
    """Tells the others that this rank takes part no more, and why."""
    control.farewell = reason.encode()[: Control.farewell.size - 1]
    control.left = 1
