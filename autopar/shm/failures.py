"""The errors of the collectives: what was being sent, who is missing or differs, how to mend it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from autopar.errors import RankLostError, RankMismatchError
from autopar.shm.layout import ELEMENT_TYPES, MOVED_TYPES, RING, Control, Descriptor, Kind, Operator

__all__ = ["describe", "lost", "mismatch"]

_DTYPE_NAMES = {number: str(dtype).removeprefix("torch.") for dtype, number in {**ELEMENT_TYPES, **MOVED_TYPES}.items()}
_NAMED = 8  # ranks in a report
_REDUCING = (Kind.ALL_REDUCE, Kind.REDUCE_SCATTER)


def lost(rank: int, label: str, reason: str, controls: Sequence[Control]) -> RankLostError:
    """This rank cannot go on, because others do not come.

    Args:
        rank: this rank.
        label: what was being sent.
        reason: who is missing, as a clause.
        controls: all ranks' control blocks, for what each of them began last.
    """
    return RankLostError(
        f"Rank {rank} of {len(controls)} lost the others at {label or 'a collective'}: {reason}.",
        why="Another rank ran out of batches, died, was too slow, or sent something else. "
        f"Last heartbeats: {_heartbeats(controls)}.",
        mend="Look at the first error that any rank printed; give every rank as many batches (`autopar.shard`, "
        "`drop_last`); `timeout=` sets how long a rank waits.",
    )


def _heartbeats(controls: Sequence[Control]) -> str:
    """What each rank began last and how long ago; of many ranks, those that have been silent longest."""
    now = time.monotonic()
    silent = sorted(range(len(controls)), key=lambda rank: controls[rank].heartbeat)[:_NAMED]
    told = []
    for rank in sorted(silent):
        control = controls[rank]
        label = control.ring[control.posted % RING].label.decode(errors="replace")
        ago = f"{max(0.0, now - control.heartbeat):.1f} s ago"
        told.append(f"rank {rank} {ago} at {label or 'a collective'}" if control.posted else f"rank {rank} none yet")
    return "; ".join(told)


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
