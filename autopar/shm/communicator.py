"""Collectives among the processes of one host, through memory that all of them map.

Starting an operation returns at once; what can be done without waiting is done on the way, whenever
this rank starts or waits for an operation. So no thread is needed, and none competes with the model
for a core.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from autopar.errors import AutoparError, RuntimeStateError, UsageError
from autopar.shm import failures
from autopar.shm.arena import Arena, Place
from autopar.shm.layout import ELEMENT_TYPES, MOVED_TYPES, OPERATORS, RING, Control, Descriptor, Kind, Status
from autopar.shm.peers import Peer
from autopar.shm.segment import Segment
from autopar.shm.transport import Transport

__all__ = ["Communicator", "Work"]

_SLICE = 0.1  # seconds in a call of the transport; between two of them Ctrl-C works and peers are looked at
_CHUNK = 4 << 20  # bytes of a message that has to be copied into shared memory first
_IN_FLIGHT = 2  # chunks on their way at a time
_FAREWELL = 1.0  # seconds that `close` waits for peers to finish what was started
_LABEL_BYTES = Descriptor.label.size

ErrorT = TypeVar("ErrorT", bound=AutoparError)


class Work:
    """A collective on its way.

    Args:
        communicator: whose.
        sequence: its number.
        label: what it carries.
    """

    __slots__ = ("_communicator", "_label", "_sequence")

    def __init__(self, communicator: Communicator, sequence: int, label: str) -> None:
        self._communicator, self._sequence, self._label = communicator, sequence, label

    def wait(self) -> None:
        """Returns when the result is there.

        Raises:
            RankLostError: a rank died, left, or did not come in time.
            RankMismatchError: the ranks started different operations; raised alike on all.
        """
        self._communicator.finish(self._sequence, self._label)

    @property
    def done(self) -> bool:
        """Whether it is over as far as this rank knows: it looks whenever it starts or waits for an operation."""
        return self._communicator.finished >= self._sequence


class Communicator:
    """One rank's end of the collectives; made by ``rendezvous.connect``.

    All ranks start the same operations in the same order. Tensors made by ``empty`` travel where
    they are; others are copied into shared memory and back, in chunks of 4 MiB.

    Args:
        rank: this rank.
        peers: the processes in rank order.
        controls: their control blocks in rank order.
        transport: moves the data.
        arena: this rank's memory.
        timeout: seconds that ``wait`` waits for the others.
        on_close: called by ``close``, or when nobody has the communicator any more.
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
        self._peers, self._controls, self._transport, self._arena = peers, controls, transport, arena
        self._lock = threading.RLock()
        self._descriptor = Descriptor()
        self._sequence = self._complete = 0
        self._pending: deque[tuple[int, torch.Tensor | None]] = deque()  # keeps memory while peers use it
        self._failure: AutoparError | None = None
        self._process = os.getpid()
        # a rank that ends while others wait is missed at once; forked children say nothing
        self._farewell = weakref.finalize(self, _leave, controls[rank], self._process, on_close)

    def __repr__(self) -> str:
        return f"Communicator(rank {self.rank} of {self.world_size}, {type(self._transport).__name__})"

    # collectives -----------------------------------------------------------------------------

    def empty(self, numel: int, dtype: torch.dtype) -> torch.Tensor:
        """An uninitialised tensor of shape (numel,) that travels without a copy.

        Raises:
            OSError: there is not enough memory.
        """
        with self._lock:
            return self._arena.empty(numel, dtype)

    def all_reduce(self, tensor: torch.Tensor, op: str = "sum", *, scale: float = 1.0, label: str = "") -> Work:
        """Starts combining ``tensor`` over all ranks, in place: the same bits on every rank.

        Each term is multiplied by ``scale`` and rounded before. The order of terms is that of gloo's
        ring, so sums of tensors that ``empty`` made have gloo's bits.

        Args:
            tensor: dense, on the CPU, of a real dtype; the same shape everywhere.
            op: ``"sum"``, ``"avg"`` (floating point only), ``"min"``, ``"max"`` or ``"product"``. Booleans are
                combined by "or" for sum and max, by "and" for product and min.
            scale: factor on each term; floating point only.
            label: what it carries, for errors; the same everywhere.
        """
        operator, tensor = _reducible(tensor, op, scale)
        place = self._arena.find(tensor) if tensor.is_contiguous() else None
        if place is not None:
            sequence = self._post(
                Kind.ALL_REDUCE, tensor, tensor.numel(), place, operator=operator, scale=scale, label=label
            )
            return Work(self, sequence, label)
        return _Staged(
            self, Kind.ALL_REDUCE, [tensor], [tensor], slots=1, operator=operator, scale=scale, label=label
        ).start()

    def broadcast(self, tensor: torch.Tensor, root: int = 0, *, label: str = "") -> Work:
        """Starts copying the tensor of rank ``root`` to all others, in place; any dtype."""
        place = self._arena.find(tensor) if _is_plain(tensor) and tensor.is_contiguous() else None
        if place is not None:
            return Work(self, self._post(Kind.BROADCAST, tensor, tensor.numel(), place, root=root, label=label), label)
        return _Staged(self, Kind.BROADCAST, [tensor], [tensor], slots=1, root=root, label=label).start()

    def all_gather(self, outputs: Sequence[torch.Tensor], tensor: torch.Tensor, *, label: str = "") -> Work:
        """Starts collecting the ranks' tensors into ``outputs``, in rank order; any dtype, equal sizes."""
        _check_parts(outputs, tensor, self.world_size)
        return _Staged(self, Kind.ALL_GATHER, [tensor], outputs, slots=self.world_size, label=label).start()

    def reduce_scatter(
        self, output: torch.Tensor, tensors: Sequence[torch.Tensor], op: str = "sum", *, label: str = ""
    ) -> Work:
        """Starts combining ``tensors[r]`` of all ranks into the ``output`` of rank r; see ``all_reduce``."""
        _check_parts(tensors, output, self.world_size)
        operator, output = _reducible(output, op, 1.0)
        inputs = [_reducible(tensor, op, 1.0)[1] for tensor in tensors]
        return _Staged(
            self, Kind.REDUCE_SCATTER, inputs, [output], slots=self.world_size, operator=operator, label=label
        ).start()

    def barrier(self, *, label: str = "") -> Work:
        """Starts waiting until all ranks have come here."""
        return Work(self, self._post(Kind.BARRIER, None, 0, Place(0, 0), label=label), label)

    def supports(self, tensor: torch.Tensor) -> bool:
        """Whether ``all_reduce`` takes this tensor: dense, on the CPU, of a real dtype."""
        return _is_plain(tensor) and (tensor.dtype in ELEMENT_TYPES or tensor.dtype == torch.bool)

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

    # the order of operations ---------------------------------------------------------------------

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

    def _post(
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
            segment = self._arena.segments[number]
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
        return self._fail(failures.lost(self.rank, label, reason, self._controls))

    def _fail(self, error: ErrorT) -> ErrorT:
        """Remembers the first error: ranks that are out of step cannot get into step again."""
        self._failure = error
        if not self._controls[self.rank].left:
            failures.say_farewell(self._controls[self.rank], "the ranks did not send the same")
        return error


class _Staged(Work):
    """An operation on tensors outside of shared memory, copied in and out chunk by chunk.

    Args:
        inputs: one tensor, or one for each slot.
        outputs: the same.
        slots: parts in the shared buffer: 1, or one for each rank.
    """

    __slots__ = ("_arguments", "_copies", "_in_flight", "_inputs", "_kind", "_outputs", "_slots")

    def __init__(
        self,
        communicator: Communicator,
        kind: Kind,
        inputs: Sequence[torch.Tensor],
        outputs: Sequence[torch.Tensor],
        *,
        slots: int,
        label: str,
        operator: int = 0,
        scale: float = 1.0,
        root: int = 0,
    ) -> None:
        super().__init__(communicator, 0, label)
        if any(not _is_plain(tensor) for tensor in (*inputs, *outputs)):
            raise UsageError("Shared memory carries dense tensors on the CPU only.", mend="Use the gloo backend.")
        self._kind, self._slots = kind, slots
        self._arguments = {"operator": operator, "scale": scale, "root": root, "label": label}
        self._inputs = [tensor.detach().reshape(-1) for tensor in inputs]
        # where the result is not contiguous, it is put together beside it first
        self._copies = [
            (out.detach(), torch.empty(out.shape, dtype=out.dtype)) for out in outputs if not out.is_contiguous()
        ]
        beside = iter(self._copies)
        self._outputs = [
            (out.detach() if out.is_contiguous() else next(beside)[1]).view(-1) for out in outputs
        ]  # fmt: skip
        self._in_flight: deque[tuple[int, int, int, torch.Tensor]] = deque()

    def start(self) -> _Staged:
        first, group = self._inputs[0], self._communicator
        count = first.numel()
        chunk = max(1, _CHUNK // (first.dtype.itemsize * self._slots))
        for start in range(0, count, chunk) if count else [0]:
            if len(self._in_flight) == _IN_FLIGHT:
                self._unload()
            length = min(chunk, count - start)
            buffer = group.empty(self._slots * length, first.dtype)
            mine = buffer.view(self._slots, length) if self._kind != Kind.ALL_GATHER else buffer.view(self._slots, -1)
            into = [mine[group.rank]] if self._kind == Kind.ALL_GATHER else list(mine)
            for place, source in zip(into, self._inputs, strict=True):
                place.copy_(source[start : start + length])
            sent = Place(0, 0) if not length else group._arena.find(buffer)
            assert sent is not None
            sequence = group._post(self._kind, buffer, length, sent, **self._arguments)  # type: ignore[arg-type]
            self._in_flight.append((sequence, start, length, buffer))
        return self

    @property
    def done(self) -> bool:
        return not self._in_flight

    def wait(self) -> None:
        while self._in_flight:
            self._unload()
        for target, copy in self._copies:
            target.copy_(copy)
        self._copies = []

    def _unload(self) -> None:
        sequence, start, length, buffer = self._in_flight.popleft()
        self._communicator.finish(sequence, self._label)
        parts = buffer.view(self._slots, length)
        sources = [parts[self._communicator.rank]] if self._kind == Kind.REDUCE_SCATTER else parts
        for source, target in zip(sources, self._outputs, strict=True):
            target[start : start + length].copy_(source)


def _leave(control: Control, process: int, on_close: Callable[[], None]) -> None:
    if os.getpid() == process:
        control.left = 1
        on_close()


def _is_plain(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided and tensor.device.type == "cpu"


def _reducible(tensor: torch.Tensor, op: str, scale: float) -> tuple[int, torch.Tensor]:
    """The operator's number and the tensor as it is reduced: booleans as bytes of 0 and 1."""
    if op not in OPERATORS:
        raise UsageError(f"There is no reduction {op!r}.", mend=f"Known: {', '.join(OPERATORS)}.")
    if tensor.dtype == torch.bool and op != "avg":
        op = {"sum": "max", "product": "min"}.get(op, op)
        tensor = tensor.view(torch.uint8)
    exact = not tensor.dtype.is_floating_point
    if tensor.dtype not in ELEMENT_TYPES or (exact and (op == "avg" or scale != 1.0)):
        what = f"the {op} of {tensor.dtype}" + ("" if scale == 1.0 else f" scaled by {scale}")
        raise UsageError(f"Shared memory cannot compute {what}.", mend="Use the gloo backend or another dtype.")
    return OPERATORS[op], tensor


def _check_parts(parts: Sequence[torch.Tensor], whole: torch.Tensor, world_size: int) -> None:
    if len(parts) != world_size or any(p.numel() != whole.numel() or p.dtype != whole.dtype for p in parts):
        raise UsageError(
            f"{len(parts)} parts were given for {world_size} ranks, or of other sizes or dtypes than the tensor.",
            mend="Give one tensor for each rank, all of one size and dtype.",
        )
