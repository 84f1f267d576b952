"""What a rank says when it has lost others: what it waited for, and when each was last heard of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autopar.errors import RankLostError

__all__ = ["Heartbeat", "lost"]

_NAMED = 8  # ranks in a report


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The last collective that a rank is known to have begun.

    Attributes:
        rank: whose.
        age: seconds since then; None where it has begun none.
        label: what it carried.
    """

    rank: int
    age: float | None
    label: str

    def __str__(self) -> str:
        if self.age is None:
            return f"rank {self.rank} none yet"
        return f"rank {self.rank} {max(0.0, self.age):.1f} s ago at {self.label or 'a collective'}"


def lost(
    rank: int, world_size: int, label: str, reason: str, heartbeats: Sequence[Heartbeat], *, unknown: str = ""
) -> RankLostError:
    """This rank cannot go on, because others do not come.

    Args:
        rank: this rank.
        world_size: of all of them.
        label: what was being sent.
        reason: who is missing or what the backend says, as a clause.
        heartbeats: of the ranks; of many, those that have been silent longest are named.
        unknown: why there are none, as a clause; "" where nobody keeps any.
    """
    why = "Another rank ran out of batches, died, was too slow, or sent something else."
    silent = sorted(heartbeats, key=lambda one: one.age if one.age is not None else float("inf"))[-_NAMED:]
    told = "; ".join(map(str, sorted(silent, key=lambda one: one.rank)))
    if told or unknown:
        why += f" Last heartbeats: {told or f'unknown, because {unknown}'}."
    error = RankLostError(
        f"Rank {rank} of {world_size} lost the others at {label or 'a collective'}: {reason}.",
        why=why,
        mend="Look at the first error that any rank printed; give every rank as many batches (`autopar.shard`, "
        "`drop_last`); `timeout=` sets how long a rank waits.",
    )
    error.heartbeats = told
    return error
