"""Says what a long job is at, to who waits for it; a short one says nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["Tell", "entering", "telling"]

Tell = Callable[[str, float], None]

SECONDS = 2.0  # that a job may take without a word


class _Job:
    def __init__(self, tell: Tell) -> None:
        self._tell, self._started, self._phase = tell, time.monotonic(), ""
        self._lock, self._late = threading.Lock(), False

    def enter(self, phase: str) -> None:
        with self._lock:
            self._phase = phase
            if self._late:
                self._tell(phase, time.monotonic() - self._started)

    def late(self) -> None:
        with self._lock:
            self._late = True
            self._tell(self._phase, time.monotonic() - self._started)


_job: ContextVar[_Job | None] = ContextVar("_job", default=None)


def entering(phase: str) -> None:
    """The job that is running goes over to ``phase``, such as ``"comparing with eager"``."""
    job = _job.get()
    if job is not None:
        job.enter(phase)


@contextmanager
def telling(tell: Tell | None, *, after: float | None = None) -> Iterator[None]:
    """Within this block ``tell`` gets phase and seconds so far once it takes long, and at each phase from then on.

    Args:
        tell: called from another thread the first time; None where nobody waits.
        after: seconds without a word; None is ``SECONDS``.
    """
    if tell is None:
        yield
        return
    job = _Job(tell)
    timer = threading.Timer(SECONDS if after is None else after, job.late)
    timer.daemon = True
    timer.start()
    token = _job.set(job)
    try:
        yield
    finally:
        timer.cancel()
        _job.reset(token)
