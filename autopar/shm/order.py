"""One rank's place in the order of operations: what it started, what is over, and why there is no more to come."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from autopar.errors import AutoparError, RuntimeStateError
from autopar.lost_ranks import lost
from autopar.shm import failures
from autopar.shm.arena import Arena, Place
from autopar.shm.layout import ELEMENT_TYPES, MOVED_TYPES, RING, Control, Descriptor, Kind, Status
from autopar.shm.peers import Peer
from autopar.shm.segment import Segment
from autopar.shm.transport import Transport

__all__ = ["Order"]

_SLICE = 0.1  # seconds in a call of the transport; between two of them Ctrl-C works and peers are looked at
_FAREWELL = 1.0  # seconds that `close` waits for peers to finish what was started
_LABEL_BYTES = Descriptor.label.size

ErrorT = TypeVar("ErrorT", bound=AutoparError)


class Order:
    """The operations that the ranks start, all in the same order.

    Args:
        rank: this rank.
        peers: the processes in rank order.
        controls: their control blocks in rank order.
        transport: moves the data.
        arena: this rank's memory.
        timeout: seconds that ``finish`` waits for the others.
        on_close: called by ``close``, or when nobody has the object any more.
    """

    def __init__(
        self,
        rank: int,
        peers: Sequence[Peer],
        controls: Sequence[Control],
        transport: Transport,
        arena: Arena,
        *,
        timeout: float,
        on_close: Callable[[], None],
    ) -> None:
        self.rank, self.world_size, self.timeout = rank, len(peers), timeout
        self._peers, self._controls, self._transport, self.arena = peers, controls, transport, arena
        self._lock = threading.RLock()
        self._descriptor = Descriptor()
        self._sequence = self._complete = 0
        self._pending: deque[tuple[int, torch.Tensor | None]] = deque()  # keeps memory while peers use it
        self._failure: AutoparError | None = None
        self._process = os.getpid()
        # a rank that ends while others wait is missed at once; forked children say nothing
        self._farewell = weakref.finalize(self, _leave, controls[rank], self._process, on_close)

    def empty(self, numel: int, dtype: torch.dtype) -> torch.Tensor:
        """An uninitialised tensor of shape (numel,) that travels without a copy.

        Raises:
            OSError: there is not enough memory.
        """
        with self._lock:
            return self.arena.empty(numel, dtype)

    def close(self) -> None:
        """Finishes what was started and takes part no more; others get an error if they wait for this rank."""
        with self._lock:
            if not self._farewell.alive:
                return
            if self._failure is None and self._sequence > self._complete:
                self._transport.wait(self._sequence, _FAREWELL)
            self._failure = self._failure or RuntimeStateError(
                "This communicator is closed.", mend="Make a new one, on all ranks."
            )
            self._farewell()
            self._pending.clear()

    @property
    def finished(self) -> int:
        """Number of the last operation that this rank has seen the end of."""
        return int(self._controls[self.rank].finished)

    def finish(self, sequence: int, label: str) -> None:
        """Waits for the operation of this number; see ``Work.wait``."""
        if sequence <= self._complete:
            return
        started = time.monotonic()
        while True:
            with self._lock:
                self._check_usable()
                status = self._transport.wait(sequence, min(_SLICE, self.timeout))
                if status == Status.DONE:
                    self._complete = max(self._complete, sequence)
                    while self._pending and self._pending[0][0] <= sequence:
                        self._pending.popleft()
                    return
                self._settle(status, label)
                if status in (Status.PENDING, Status.LEFT):
                    self._look_at_peers(sequence, label, time.monotonic() - started)

    def post(
        self,
        kind: Kind,
        tensor: torch.Tensor | None,
        count: int,
        place: Place,
        *,
        operator: int = 0,
        scale: float = 1.0,
        root: int = 0,
        label: str,
    ) -> int:
        """Starts an operation.

        Args:
            kind, operator, scale, root, label: of the operation.
            tensor: in shared memory, kept until peers have read it; None where nothing travels.
            count: elements, in each part where there are several.
            place: of the tensor.

        Returns:
            Its number, for ``finish``.
        """
        with self._lock:
            self._check_usable()
            sequence = self._sequence + 1
            if sequence - self._complete > RING:  # nobody may still read the descriptor that this one replaces
                self.finish(sequence - RING, label)
            what = self._descriptor
            what.kind, what.operator, what.scale, what.root, what.count = kind, operator, scale, root, count
            if tensor is not None:
                what.dtype = ELEMENT_TYPES.get(tensor.dtype) or MOVED_TYPES[tensor.dtype]
                what.element_size = tensor.dtype.itemsize
            else:
                what.dtype = what.element_size = 0
            what.label = label.encode()[: _LABEL_BYTES - 1].ljust(_LABEL_BYTES, b"\0")
            what.segment, what.offset = place
            self._sequence = sequence
            self._controls[self.rank].heartbeat = time.monotonic()
            self._pending.append((sequence, tensor))
            status = self._transport.post(what)
            if status not in (Status.DONE, Status.PENDING):
                self._settle(status, label)
            return sequence

    def _settle(self, status: Status, label: str) -> None:
        """Does what the transport needs before it can go on, and raises what cannot be mended."""
        while status == Status.UNMAPPED:
            self._map(*self._transport.lacking(), label)
            status = self._transport.progress()
        if status == Status.MISMATCH:
            at = (self._controls[self.rank].finished + 1) % RING
            raise self._fail(failures.mismatch([control.ring[at] for control in self._controls]))

    def _map(self, rank: int, number: int, label: str) -> None:
        if rank == self.rank:
            segment = self.arena.segments[number]
        else:
            try:
                segment = Segment.of_peer(self._peers[rank].pid, self._controls[rank].segment_fds[number])
            except OSError as error:
                reason = self._reason_of(rank) or f"the memory of rank {rank} cannot be mapped ({error.strerror})"
                raise self._lost(label, reason) from error
        self._transport.map(rank, number, segment)

    # failures --------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise self._failure
        if os.getpid() != self._process:
            raise RuntimeStateError(
                "A communicator of the parent process was used in a forked child.",
                mend="Make the process group in the child.",
            )

    def _look_at_peers(self, sequence: int, label: str, waited: float) -> None:
        self._settle(self._transport.progress(), label)
        dead = [reason for rank in range(self.world_size) if (reason := self._death_of(rank))]
        if dead:
            raise self._lost(label, dead[0])
        behind = [rank for rank, control in enumerate(self._controls) if control.finished < sequence]
        for rank in behind:
            if rank != self.rank and (reason := self._reason_of(rank)):
                raise self._lost(label, reason)
        if waited >= self.timeout:
            late = [rank for rank in behind if self._controls[rank].posted < sequence and rank != self.rank]
            names = ", ".join(map(str, late or behind))
            raise self._lost(label, f"rank {names} did not come within {self.timeout:g} s")

    def _death_of(self, rank: int) -> str:
        if rank == self.rank or self._controls[rank].left or self._peers[rank].is_alive():
            return ""
        return f"rank {rank} (process {self._peers[rank].pid}) died"

    def _reason_of(self, rank: int) -> str:
        """Why no more is to be expected of a rank; empty where it may still come."""
        control = self._controls[rank]
        if control.left:
            told = control.farewell.decode(errors="replace")
            return f"rank {rank} gave up because {told}" if told else f"rank {rank} has left"
        return self._death_of(rank)

    def _lost(self, label: str, reason: str) -> AutoparError:
        failures.say_farewell(self._controls[self.rank], reason)
        heartbeats = failures.heartbeats(self._controls)
        return self._fail(lost(self.rank, self.world_size, label, reason, heartbeats))

    def _fail(self, error: ErrorT) -> ErrorT:
        """Remembers the first error: ranks that are out of step cannot get into step again."""
        self._failure = error
        if not self._controls[self.rank].left:
            failures.say_farewell(self._controls[self.rank], "the ranks did not send the same")
        return error


def _leave(control: Control, process: int, on_close: Callable[[], None]) -> None:
    if os.getpid() == process:
        control.left = 1
        on_close()
