"""Gradient accumulation: which backward of a window communicates, and what becomes of a window cut short."""

from __future__ import annotations

from collections.abc import Sequence

from autopar.errors import RuntimeStateError
from autopar.runtime.agreement import exchange
from autopar.runtime.bucket_kinds import AnyBucket
from autopar.runtime.group import Group

__all__ = ["Window", "micro_steps_of_all"]


class Window:
    """Counts the backwards that share one synchronisation, and scales the buckets by their number.

    Args:
        buckets: what is sent; scaled for one backward.
        ranks: what sums over the ranks are divided by; 1 where communication hooks do so.

    Attributes:
        size: how many backwards a window has; 1 sends each.
        done: backwards of this window that have ended.
    """

    def __init__(self, buckets: Sequence[AnyBucket], ranks: int) -> None:
        self.buckets, self.ranks = buckets, ranks
        self.size, self.done = 1, 0
        self._scale = (ranks, 1.0)

    @property
    def open(self) -> bool:
        """Whether the backward that runs now, or the next one, only adds to the local ``.grad``."""
        return self.done + 1 < self.size

    def scale_for(self, micro_steps: float) -> None:
        """Makes the next messages means over so many backwards of each rank."""
        if self._scale != (self.ranks, micro_steps):
            self._scale = (self.ranks, micro_steps)
            for bucket in self.buckets:
                bucket.divide_by(self.ranks * micro_steps)


def micro_steps_of_all(group: Group, done: int, step: int) -> int:
    """How many backwards the unfinished windows of all ranks hold together.

    Args:
        group: the ranks.
        done: backwards in this rank's window.
        step: synchronised backwards of this rank so far.

    Raises:
        RuntimeStateError: the ranks are at different steps; raised alike on all of them.
    """
    if group.world_size == 1:
        return done
    said = exchange(group, [done, step])
    for rank, (other, at) in enumerate(said):
        if at != said[0][1]:
            raise RuntimeStateError(
                f"Rank 0 wants to flush at step {said[0][1]}, micro-step {said[0][0]}, and rank {rank} at step {at}, "
                f"micro-step {other}.",
                why="One has finished more windows of accumulation than the other.",
                mend="Give every rank equally many whole windows of batches before flush(); autopar.shard does.",
            )
    return sum(other for other, _ in said)
