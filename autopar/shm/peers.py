"""Whether the process of another rank still runs."""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["Peer"]


@dataclass(frozen=True, slots=True)
class Peer:
    """A process of this host.

    Attributes:
        pid: its process id.
        started: when it started, in clock ticks since boot; tells it from a later one of the same id.
    """

    pid: int
    started: int

    @classmethod
    def this_process(cls) -> Peer:
        """Ourselves, as others see us."""
        pid = os.getpid()
        _, started = _look_up(pid)
        return cls(pid, started)

    def is_alive(self) -> bool:
        """False when it has ended, also while its parent has not noticed (a zombie); takes 20 us."""
        try:
            state, started = _look_up(self.pid)
        except OSError:
            return False
        return state not in "ZX" and started == self.started


def _look_up(pid: int) -> tuple[str, int]:
    """State letter and start time (proc(5), fields 3 and 22 of stat)."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()  # what is before may hold anything
    return fields[0].decode(), int(fields[19])
