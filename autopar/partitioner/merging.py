"""Which gradients travel together so that the step ends first.

The merged-gradient wait-free back-propagation problem (Shi et al., INFOCOM 2019): merging spares
latency, waiting for more gradients to merge loses time in which the wire is idle. Gradients are merged
in the order in which they become ready, so a solution is a partition of that order into runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Wire", "merge"]

_WORTHWHILE = 1e-3  # of the predicted end: another message for less than that is noise
_MOST_MORE = 64  # messages beyond the fewest that the cap allows


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """What a message costs.

    Attributes:
        message: seconds that any message takes.
        per_byte: seconds that each byte takes on top.
        overlap: share of that in which the rank computes on, from 0 to 1.
    """

    message: float
    per_byte: float
    overlap: float


def merge(sizes: Sequence[int], ready: Sequence[float], computed: float, wire: Wire, *, cap_bytes: int) -> list[int]:
    """The partition whose predicted end is the earliest; of equal ones that with the fewest messages.

    Dynamic programming over prefixes, one row for each number of messages at most. Times are on the clock of
    the computation, which stands still while a message takes the rank's own time: on it a message of
    ``n`` bytes takes ``overlap * (message + n * per_byte)``, and what stands still adds to the end
    as a whole. With ``start[j]`` the earliest time at which the wire can be free after the first ``j``
    gradients, ``start[j] = min over i of max(start[i], ready[j]) + time of the message i..j``. As
    ``start`` and ``ready`` do not decrease, each row takes linear time: the ``i`` whose wire is free when
    ``j`` is ready are a prefix, of which the last is the best, and among the others a sliding window
    keeps the smallest ``start[i] - time of the bytes before i``.

    Args:
        sizes: bytes of each gradient, in ready order.
        ready: seconds at which each is ready; not decreasing.
        computed: seconds at which backward ends, no earlier than the last of ``ready``.
        wire: what a message costs.
        cap_bytes: no message is larger, unless it is one gradient.

    Returns:
        For each message, the place after its last gradient.

    Example:
        >>> slow = Wire(message=1.0, per_byte=0.25, overlap=1.0)
        >>> merge([4, 4, 4], [0.0, 0.1, 5.0], 5.0, slow, cap_bytes=100)
        [2, 3]
    """
    count = len(sizes)
    if not count:
        return []
    before = [0]
    for size in sizes:
        before.append(before[-1] + size)
    lowest = _lowest(before, cap_bytes)
    row = [0.0] + [float("inf")] * count
    rows: list[list[int]] = []  # for each number of messages, where the last one of a prefix begins
    best, best_end, fewest = 0, float("inf"), count
    floor = max(computed, ready[-1] + wire.overlap * (wire.message + sizes[-1] * wire.per_byte))
    still = (1.0 - wire.overlap) * wire.per_byte * before[-1]
    for messages in range(1, count + 1):
        stolen = still + (1.0 - wire.overlap) * wire.message * messages
        if floor + stolen >= best_end * (1 - _WORTHWHILE) or messages > fewest + _MOST_MORE:
            break
        row, origin = _next_row(row, before, ready, lowest, wire)
        rows.append(origin)
        end = max(row[count], computed) + stolen
        if end < best_end * (1 - _WORTHWHILE):
            best, best_end, fewest = messages, end, min(fewest, messages)
    cuts, place = [], count
    for origin in reversed(rows[:best]):
        if place:
            cuts.append(place)
            place = origin[place]
    return cuts[::-1]


def _lowest(before: Sequence[int], cap_bytes: int) -> list[int]:
    """For each prefix, the earliest place where its last message may begin."""
    found, low = [0], 0
    for place in range(1, len(before)):
        while low < place - 1 and before[place] - before[low] > cap_bytes:
            low += 1
        found.append(low)
    return found


def _next_row(
    row: Sequence[float], before: Sequence[int], ready: Sequence[float], lowest: Sequence[int], wire: Wire
) -> tuple[list[float], list[int]]:
    """When the wire can be free after each prefix with one message more, and where that message begins."""
    message, per_byte = wire.overlap * wire.message, wire.overlap * wire.per_byte
    fresh, origin = [0.0], [0]
    keys = [end - per_byte * size for end, size in zip(row, before, strict=True)]
    free = 0  # places before this one have a wire that is free when the gradient is ready
    window: deque[int] = deque()  # the others, by key, smallest first
    for place in range(1, len(before)):
        while window and keys[window[-1]] >= keys[place - 1]:
            window.pop()
        window.append(place - 1)
        while free < place and row[free] <= ready[place - 1]:
            free += 1
        while window and window[0] < max(lowest[place], free):
            window.popleft()
        end, start = float("inf"), 0
        if window:
            start = window[0]
            end = keys[start] + message + per_byte * before[place]
        if free > lowest[place]:
            hidden = ready[place - 1] + message + per_byte * (before[place] - before[free - 1])
            if hidden < end:
                end, start = hidden, free - 1
        fresh.append(end)
        origin.append(start)
    return fresh, origin
