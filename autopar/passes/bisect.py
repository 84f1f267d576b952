"""Finds the first of several passes with which something fails, by trying few of their beginnings."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["first_bad"]


def first_bad(count: int, fails: Callable[[int], bool]) -> int | None:
    """The number of the first pass with which it fails.

    Args:
        count: how many passes there are.
        fails: says whether it fails with the first so many passes; asked at most ``log2(count) + 3`` times.

    Returns:
        From 1 to ``count``; 0 where it fails without any pass, None where it does not fail with all.

    Example:
        >>> first_bad(10, lambda limit: limit >= 7)
        7
    """
    if not fails(count):
        return None
    if count == 0 or fails(0):
        return 0
    good, bad = 0, count
    while bad - good > 1:
        middle = (good + bad) // 2
        if fails(middle):
            bad = middle
        else:
            good = middle
    return bad
