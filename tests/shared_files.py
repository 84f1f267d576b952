"""What processes leave behind in shared memory."""

from __future__ import annotations

import os

__all__ = ["shared_files"]

# Python's and torch's own multiprocessing: tests that run beside this one may use it.
_OF_OTHERS = ("sem.mp-", "torch_")


def shared_files() -> set[str]:
    """Names in /dev/shm; empty where there is no such folder."""
    names = os.listdir("/dev/shm") if os.path.isdir("/dev/shm") else []
    return {name for name in names if not name.startswith(_OF_OTHERS)}
