"""How many cases are drawn, and how long one may take."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

__all__ = ["JSON_VALUES", "damaged", "fuzzed", "in_time"]

KINDS = 5  # tests that draw with `fuzzed`; they share AUTOPAR_FUZZ_CASES
LONGEST = 20.0  # seconds of CPU time

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)


class TooLongError(BaseException):
    """A case does not end; no `except Exception` of what is tested may hide it."""


def fuzzed(test: Callable[..., Any]) -> Callable[..., Any]:
    """Draws this test's part of the cases: the same ones each time, unless a number is asked for."""
    asked = os.environ.get("AUTOPAR_FUZZ_CASES")
    cases = -(-int(asked or 300) // KINDS)
    wanted = settings(
        max_examples=cases,
        deadline=None,
        derandomize=asked is None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    return wanted(test)


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """Ends a case that computes for too long; one that waits is ended by the test's own time limit."""

    def too_long(*ignored: object) -> None:
        raise TooLongError(f"{LONGEST:.0f} s of CPU time")

    before = signal.signal(signal.SIGVTALRM, too_long)
    signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def damaged(draw: st.DrawFn, value: Any) -> Any:
    """A JSON object, changed: up to three times something in it is replaced or left out, at any depth."""
    for _ in range(draw(st.integers(1, 3))):
        place = value
        while keys := list(place) if isinstance(place, dict) else list(range(len(place))):
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], (dict, list)) and place[key] and draw(st.integers(0, 3)):
                place = place[key]
                continue
            if draw(st.integers(0, 3)):
                place[key] = draw(JSON_VALUES)
            else:
                del place[key]
            break
    return value
