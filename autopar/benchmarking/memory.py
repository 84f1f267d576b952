"""The most memory that a rank holds while it trains, from Linux's own account."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

__all__ = ["peak_bytes"]

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes(step: Callable[[], None], *, warmup: int, steps: int) -> int | None:
    """Peak resident bytes of this process during some steps; None where the system keeps no account.

    Memory of other processes that this one has mapped and touched counts, as in any figure of resident
    memory: with shared memory, that is what it reads of the other ranks' messages.

    Args:
        step: one training step.
        warmup: steps before, so that what a start takes is not in it.
        steps: how many to watch.
    """
    for _ in range(warmup):
        step()
    try:
        _CLEAR.write_text("5")  # the peak begins anew: see proc(5)
    except OSError:
        return None
    for _ in range(steps):
        step()
    found = [line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(found[0].split()[1]) * 1024 if found else None
