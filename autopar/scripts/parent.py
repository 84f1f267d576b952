"""Ends a process when the one that it works for is gone, however that ended: kill -9 leaves no orphans."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from multiprocessing import connection, parent_process

__all__ = ["end_with_caller", "end_with_parent"]

_PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_parent() -> None:
    """Lets the system send SIGTERM when the parent process ends (on Linux; elsewhere nothing)."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before it could be asked for
        os.kill(os.getpid(), signal.SIGTERM)


def end_with_caller() -> None:
    """Ends a process of ``multiprocessing`` with the one that started it, whose child it need not be (forkserver).

    Ctrl-C is left to that one, too: one command says one sentence.
    """
    caller = parent_process()
    if caller is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_end_after, args=(caller.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
