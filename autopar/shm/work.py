"""A collective on its way, and one whose tensors have to be copied into shared memory and back."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch

from autopar.errors import UsageError
from autopar.shm.arena import Place
from autopar.shm.layout import Kind
from autopar.shm.order import Order

__all__ = ["Staged", "Work", "is_plain"]

_CHUNK = 4 << 20  # bytes of a message that has to be copied into shared memory first
_IN_FLIGHT = 2  # chunks on their way at a time


class Work:
    """A collective on its way.

    Args:
        order: whose.
        sequence: its number.
        label: what it carries.
    """

    __slots__ = ("_label", "_order", "_sequence")

    def __init__(self, order: Order, sequence: int, label: str) -> None:
        self._order, self._sequence, self._label = order, sequence, label

    def wait(self) -> None:
        """Returns when the result is there.

        Raises:
            RankLostError: a rank died, left, or did not come in time.
            RankMismatchError: the ranks started different operations; raised alike on all.
        """
        self._order.finish(self._sequence, self._label)

    @property
    def done(self) -> bool:
        """Whether it is over as far as this rank knows: it looks whenever it starts or waits for an operation."""
        return self._order.finished >= self._sequence


class Staged(Work):
    """An operation on tensors outside of shared memory, copied in and out chunk by chunk.

    Args:
        inputs: one tensor, or one for each slot.
        outputs: the same.
        slots: parts in the shared buffer: 1, or one for each rank.
    """

    __slots__ = ("_arguments", "_copies", "_in_flight", "_inputs", "_kind", "_outputs", "_slots")

    def __init__(
        self,
        order: Order,
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
        super().__init__(order, 0, label)
        if any(not is_plain(tensor) for tensor in (*inputs, *outputs)):
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

    def start(self) -> Staged:
        """Copies in and posts all chunks but the last ones in flight."""
        first, group = self._inputs[0], self._order
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
            sent = Place(0, 0) if not length else group.arena.find(buffer)
            assert sent is not None
            sequence = group.post(self._kind, buffer, length, sent, **self._arguments)  # type: ignore[arg-type]
            self._in_flight.append((sequence, start, length, buffer))
        return self

    @property
    def done(self) -> bool:
        """Whether everything was copied back."""
        return not self._in_flight

    def wait(self) -> None:
        """Copies the results back as they come; raises what ``Work.wait`` does."""
        while self._in_flight:
            self._unload()
        for target, copy in self._copies:
            target.copy_(copy)
        self._copies = []

    def _unload(self) -> None:
        sequence, start, length, buffer = self._in_flight.popleft()
        self._order.finish(sequence, self._label)
        parts = buffer.view(self._slots, length)
        sources = [parts[self._order.rank]] if self._kind == Kind.REDUCE_SCATTER else parts
        for source, target in zip(sources, self._outputs, strict=True):
            target[start : start + length].copy_(source)


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether it is dense and on the CPU."""
    return tensor.layout == torch.strided and tensor.device.type == "cpu"
