"""When things happened in the last steps of a rank, for the report beside what the plan predicted."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Sequence

__all__ = ["StepTimes"]

_KEPT = 50  # steps; the first ones, which warm up, are forgotten after that many


class StepTimes:
    """Notes, in seconds from the beginning of each forward, when buckets left and were seen to have arrived.

    The engine only waits when its backward is computed, so that is the earliest time at which a bucket is
    seen to have arrived. Only plain steps count: one forward, then one backward.

    Args:
        buckets: how many there are.
    """

    def __init__(self, buckets: int) -> None:
        self._sent, self._arrived = [0.0] * buckets, [0.0] * buckets
        self._steps: deque[tuple[list[float], list[float], float, float]] = deque(maxlen=_KEPT)
        self._begin = self._computed = 0.0
        self._begun = False

    def begin(self) -> None:
        """A forward begins."""
        self._begin, self._begun = time.perf_counter(), True

    def sent(self, bucket: int) -> None:
        """A bucket was sent."""
        self._sent[bucket] = time.perf_counter() - self._begin

    def arrived(self, bucket: int) -> None:
        """A bucket is known to have arrived."""
        self._arrived[bucket] = time.perf_counter() - self._begin

    def computed(self) -> None:
        """Backward has nothing left to compute."""
        self._computed = time.perf_counter() - self._begin

    def end(self, *, plain: bool) -> None:
        """Everything is over; the step counts if it was a plain one whose beginning is known."""
        begun, self._begun = self._begun, False
        if plain and begun:
            now = time.perf_counter() - self._begin
            self._steps.append(([*self._sent], [*self._arrived], self._computed, now))

    @property
    def steps(self) -> int:
        """How many steps the medians are of."""
        return len(self._steps)

    def step(self) -> tuple[float, float]:
        """Medians: when everything was computed, and when everything was over."""
        return _median([one[2] for one in self._steps]), _median([one[3] for one in self._steps])

    def bucket(self, index: int) -> tuple[float, float]:
        """Medians: when a bucket was sent, and when it was seen to have arrived."""
        return _median([one[0][index] for one in self._steps]), _median([one[1][index] for one in self._steps])


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)
