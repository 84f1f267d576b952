"""Places the buckets beside the rows that launch them, each in a place of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Message", "messages", "places"]


@dataclass(frozen=True, slots=True)
class Message:
    """Buckets that are drawn as one: usually a single one.

    Attributes:
        buckets: indices, consecutive.
        line: line of the picture whose backward launches the last of them.
    """

    buckets: tuple[int, ...]
    line: int


def messages(launches: Mapping[int, int], *, most: int) -> list[Message]:
    """Groups buckets, in launch order, so that at most ``most`` are drawn.

    Args:
        launches: bucket index to line, in launch order.
        most: number of messages that fit.

    Example:
        >>> [one.buckets for one in messages({0: 9, 1: 5, 2: 0}, most=2)]
        [(0, 1), (2,)]
    """
    indices = list(launches)
    size = max(1, -(-len(indices) // most))
    groups = [tuple(indices[start : start + size]) for start in range(0, len(indices), size)]
    return [Message(group, launches[group[-1]]) for group in groups]


def places(lines: Sequence[int], count: int) -> list[int]:
    """One slot for each message: as near to its line as can be, later launches above earlier ones.

    Args:
        lines: line of each message, in launch order.
        count: number of slots, at least that of the messages.

    Example:
        >>> places([3, 3, 0], 4)
        [3, 2, 0]
        >>> places([0, 0, 0], 4)
        [2, 1, 0]
    """
    slots: list[int] = []
    below = count
    for line in lines:
        below = min(line, below - 1)
        slots.append(below)
    above = -1
    for index in reversed(range(len(slots))):
        above = slots[index] = max(slots[index], above + 1)
    return slots
