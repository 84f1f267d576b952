"""What moves the data: the protocol of ``kernels.c``, which exists compiled and in plain Python."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Sequence
from typing import Protocol

from autopar.shm.layout import Control, Descriptor, Status
from autopar.shm.segment import Segment

__all__ = ["NativeTransport", "Transport", "spins_for"]


class Transport(Protocol):
    """One rank's view of the control blocks and segments of all ranks; for one thread at a time."""

    def post(self, what: Descriptor) -> Status:
        """Announces this rank's next operation and does what can be done without waiting."""
        ...

    def progress(self) -> Status:
        """Does what can be done without waiting."""
        ...

    def wait(self, sequence: int, limit: float) -> Status:
        """Works until the operation is complete on all ranks; PENDING after ``limit`` seconds."""
        ...

    def lacking(self) -> tuple[int, int]:
        """Rank and number of the segment that the last UNMAPPED was about."""
        ...

    def map(self, rank: int, number: int, segment: Segment) -> None:
        """Makes a rank's segment known."""
        ...


class NativeTransport:
    """The compiled protocol; calls release the GIL.

    Args:
        library: what ``compiling.kernels`` gave.
        rank: this rank.
        controls: the control blocks in rank order.
    """

    def __init__(self, library: ctypes.CDLL, rank: int, controls: Sequence[Control]) -> None:
        pointers = (ctypes.c_void_p * len(controls))(*map(ctypes.addressof, controls))
        self._library = library
        self._handle = library.autopar_open(rank, len(controls), pointers, spins_for(len(controls)))
        if not self._handle:
            raise OSError("no memory for the transport")
        self._post, self._wait, self._progress = library.autopar_post, library.autopar_wait, library.autopar_progress
        self._kept: list[Control | Segment] = list(controls)
        weakref.finalize(self, library.autopar_close, self._handle).atexit = False

    def post(self, what: Descriptor) -> Status:
        """Announces this rank's next operation and does what can be done without waiting."""
        return Status(self._post(self._handle, ctypes.byref(what)))

    def progress(self) -> Status:
        """Does what can be done without waiting."""
        return Status(self._progress(self._handle))

    def wait(self, sequence: int, limit: float) -> Status:
        """Works until the operation is complete on all ranks; PENDING after ``limit`` seconds."""
        return Status(self._wait(self._handle, sequence, limit))

    def lacking(self) -> tuple[int, int]:
        """Rank and number of the segment that the last UNMAPPED was about."""
        library, handle = self._library, self._handle
        return library.autopar_lacking_rank(handle), library.autopar_lacking_segment(handle)

    def map(self, rank: int, number: int, segment: Segment) -> None:
        """Makes a rank's segment known."""
        self._library.autopar_map(self._handle, rank, number, segment.address)
        self._kept.append(segment)


def spins_for(ranks: int) -> int:
    """How often a waiting rank looks before it gives the core away: not at all where cores are short."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1000 if ranks <= cores else 0
