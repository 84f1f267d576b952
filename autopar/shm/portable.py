"""The protocol of ``kernels.c`` in Python and torch, for machines without a C compiler.

Control words are plain aligned 8-byte loads and stores, which x86-64 keeps in order (Intel SDM,
volume 3, 9.2.2); other processors need the compiled one. Both may take part in one communicator.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence

import torch

from autopar.shm.layout import ELEMENT_TYPES, RING, Control, Descriptor, Kind, Operator, Status
from autopar.shm.segment import Segment

__all__ = ["PortableTransport", "is_ordered"]

_DTYPES = {number: dtype for dtype, number in ELEMENT_TYPES.items()}
_SHARED_FIELDS = Descriptor.segment.offset  # what comes before is equal on all ranks
_COMBINE: dict[int, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    Operator.SUM: torch.add,
    Operator.AVG: torch.add,
    Operator.MIN: torch.minimum,
    Operator.MAX: torch.maximum,
    Operator.PRODUCT: torch.mul,
}
_LONGEST_NAP = 0.0005  # seconds


def is_ordered() -> bool:
    """Whether this processor keeps the order of plain stores, so that no fences are needed."""
    return platform.machine().lower() in ("x86_64", "amd64")


class PortableTransport:
    """The protocol without a compiler.

    Args:
        rank: this rank.
        controls: the control blocks in rank order.
    """

    def __init__(self, rank: int, controls: Sequence[Control]) -> None:
        self.rank, self.size = rank, len(controls)
        self._controls, self._own = list(controls), controls[rank]
        self._segments: dict[tuple[int, int], torch.Tensor] = {}
        self._next = 1
        self._lacking = (0, 0)

    def post(self, what: Descriptor) -> Status:
        """Announces this rank's next operation and does what can be done without waiting."""
        sequence = self._own.posted + 1
        self._own.ring[sequence % RING] = what
        self._own.posted = sequence
        return self.progress()

    def progress(self) -> Status:
        """Does what can be done without waiting."""
        while self._next <= self._own.posted:
            if any(control.posted < self._next for control in self._controls):
                return Status.PENDING
            descriptors = [control.ring[self._next % RING] for control in self._controls]
            what = descriptors[self.rank]
            if any(bytes(other)[:_SHARED_FIELDS] != bytes(what)[:_SHARED_FIELDS] for other in descriptors):
                return Status.MISMATCH
            for rank, other in enumerate(descriptors):
                if (rank, other.segment) not in self._segments:
                    self._lacking = (rank, other.segment)
                    return Status.UNMAPPED
            self._work(what, descriptors)
            self._own.finished = self._next
            self._next += 1
        return Status.DONE

    def wait(self, sequence: int, limit: float) -> Status:
        """Works until the operation is complete on all ranks; PENDING after ``limit`` seconds."""
        end, nap = time.monotonic() + limit, 0.0
        while True:
            status = self.progress()
            if status in (Status.MISMATCH, Status.UNMAPPED):
                return status
            behind = [(c.left, c.finished) for c in self._controls]  # `left` is read before `finished`
            behind = [(left, finished) for left, finished in behind if finished < sequence]
            if not behind:
                return Status.DONE
            if any(left for left, _ in behind):
                return Status.LEFT
            if time.monotonic() >= end:
                return Status.PENDING
            time.sleep(nap)
            nap = min(nap + 0.00001, _LONGEST_NAP)

    def lacking(self) -> tuple[int, int]:
        """Rank and number of the segment that the last UNMAPPED was about."""
        return self._lacking

    def map(self, rank: int, number: int, segment: Segment) -> None:
        """Makes a rank's segment known."""
        self._segments[rank, number] = torch.frombuffer(segment.memory, dtype=torch.uint8)

    def _work(self, what: Descriptor, descriptors: Sequence[Descriptor]) -> None:
        rank, size, count = self.rank, self.size, what.count
        if count == 0 or what.kind == Kind.BARRIER:
            return
        parts = size if what.kind in (Kind.ALL_GATHER, Kind.REDUCE_SCATTER) else 1
        buffers = [
            self._segments[peer, other.segment][other.offset :][: parts * count * what.element_size]
            for peer, other in enumerate(descriptors)
        ]
        with torch.no_grad():
            if what.kind == Kind.BROADCAST:
                if rank != what.root:
                    buffers[rank].copy_(buffers[what.root])
            elif what.kind == Kind.ALL_GATHER:
                slots = [buffer.view(size, -1) for buffer in buffers]
                for peer in range(size):
                    if peer != rank:
                        slots[rank][peer].copy_(slots[peer][peer])
            else:
                typed = [buffer.view(_DTYPES[what.dtype]) for buffer in buffers]
                if what.kind == Kind.REDUCE_SCATTER:
                    first, last, targets = rank * count, (rank + 1) * count, [typed[rank]]
                else:
                    part = _share(count, what.element_size, size)
                    first, last, targets = min(rank * part, count), min((rank + 1) * part, count), typed
                terms = [typed[(rank - 1 - turn) % size][first:last] for turn in range(size)]
                total = _reduced(terms, what.operator, what.scale)
                for target in targets:
                    target[first:last].copy_(total)


def _share(count: int, element_size: int, size: int) -> int:
    """Elements of a rank's share of an all-reduce, as in kernels.c."""
    nbytes = count * element_size
    segments = _rounded_up(max(_rounded_up(nbytes, 1 << 20) >> 20, 2 * size), size)
    return segments // size * (_rounded_up(-(-nbytes // segments), element_size) // element_size)


def _rounded_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _reduced(terms: Sequence[torch.Tensor], operator: int, scale: float) -> torch.Tensor:
    """The terms combined in order; each product and each partial result is rounded to the dtype."""
    scaled = [term if scale == 1.0 else term * scale for term in terms]
    total = scaled[0].clone()
    for term in scaled[1:]:
        total = _COMBINE[operator](total, term)
    return total / len(terms) if operator == Operator.AVG else total
