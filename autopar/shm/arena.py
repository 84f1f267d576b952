"""Tensors in shared memory: one rank's segments, cut into blocks that live as long as their tensors."""

from __future__ import annotations

import bisect
import ctypes
import weakref
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch

from autopar.shm.layout import MAX_SEGMENTS
from autopar.shm.segment import Segment

__all__ = ["Arena", "Place"]

_ALIGNMENT = 64  # bytes: a cache line, so that two blocks never share one
_SMALLEST = 1 << 20
_LARGEST_STEP = 256 << 20


class Place(NamedTuple):
    """Where a tensor's first element is: a segment's number and the offset in bytes."""

    segment: int
    offset: int


class Arena:
    """Hands out tensors in this rank's shared memory, and takes it back when their storage is gone.

    Args:
        reserve: bytes that must be there from the start.
        announce: called with number and segment whenever one is added.
        sharers: how many processes of this host reserve as much at the same time.

    Raises:
        OSError: there is not enough memory.
    """

    def __init__(self, reserve: int, announce: Callable[[int, Segment], None], *, sharers: int = 1) -> None:
        self.segments: list[Segment] = []
        self._announce, self._sharers = announce, sharers
        self._starts: list[tuple[int, int]] = []  # (address, number of the segment), sorted
        self._free: list[tuple[int, int, int]] = []  # (segment, first byte, end), sorted
        # Blocks whose tensors are gone. Any thread may drop the last reference, also in the midst of
        # `_take`; so they are noted here and merged by the next `_take`.
        self._returned: deque[tuple[int, int, int]] = deque()
        self._grow(reserve)

    def empty(self, numel: int, dtype: torch.dtype) -> torch.Tensor:
        """An uninitialised contiguous tensor of shape (numel,) that peers can reach.

        Raises:
            OSError: there is not enough memory.
        """
        nbytes = numel * dtype.itemsize
        if nbytes == 0:
            return torch.empty(0, dtype=dtype)
        size = _aligned(nbytes)
        segment, start = self._take(size)
        block = (ctypes.c_char * nbytes).from_buffer(self.segments[segment].memory, start)
        weakref.finalize(block, self._returned.append, (segment, start, start + size)).atexit = False
        return torch.frombuffer(block, dtype=dtype)

    def find(self, tensor: torch.Tensor) -> Place | None:
        """Where a contiguous tensor lies in this arena; None for one from elsewhere."""
        address = tensor.data_ptr()
        position = bisect.bisect_right(self._starts, (address, MAX_SEGMENTS)) - 1
        if position < 0:
            return None
        start, number = self._starts[position]
        offset = address - start
        return Place(number, offset) if offset < self.segments[number].nbytes else None

    def close(self) -> None:
        """Adds no further segment and lets nobody map one; tensors stay good."""
        for segment in self.segments:
            segment.close()

    def _take(self, size: int) -> tuple[int, int]:
        while self._returned:
            self._merge(*self._returned.popleft())
        for position, (segment, start, end) in enumerate(self._free):
            if end - start >= size:
                if end - start == size:
                    del self._free[position]
                else:
                    self._free[position] = (segment, start + size, end)
                return segment, start
        self._grow(size)
        return self._take(size)

    def _merge(self, segment: int, start: int, end: int) -> None:
        position = bisect.bisect_left(self._free, (segment, start, end))
        if position < len(self._free) and self._free[position][:2] == (segment, end):
            end = self._free.pop(position)[2]
        if position > 0 and self._free[position - 1][0] == segment and self._free[position - 1][2] == start:
            start = self._free.pop(position - 1)[1]
            position -= 1
        self._free.insert(position, (segment, start, end))

    def _grow(self, size: int) -> None:
        """Adds a segment: as much again as there is, so that few are ever needed."""
        number = len(self.segments)
        if number == MAX_SEGMENTS:
            raise OSError(f"all {MAX_SEGMENTS} segments of shared memory are in use")
        total = sum(segment.nbytes for segment in self.segments)
        nbytes = max(_aligned(size), _SMALLEST, min(total, _LARGEST_STEP))
        segment = Segment.create(nbytes, sharers=self._sharers)  # ranks do alike, so they grow alike
        self.segments.append(segment)
        bisect.insort(self._starts, (segment.address, number))
        bisect.insort(self._free, (number, 0, segment.nbytes))
        self._announce(number, segment)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT
