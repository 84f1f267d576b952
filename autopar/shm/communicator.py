"""Collectives among the processes of one host, through memory that all of them map.

Starting an operation returns at once; what can be done without waiting is done on the way, whenever
this rank starts or waits for an operation. So no thread is needed, and none competes with the model
for a core.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from autopar.errors import UsageError
from autopar.shm.arena import Place
from autopar.shm.layout import ELEMENT_TYPES, OPERATORS, Kind
from autopar.shm.order import Order
from autopar.shm.work import Staged, Work, is_plain

__all__ = ["Communicator", "Work"]


class Communicator(Order):
    """One rank's end of the collectives; made by ``rendezvous.connect``.

    All ranks start the same operations in the same order. Tensors made by ``empty`` travel where
    they are; others are copied into shared memory and back, in chunks of 4 MiB.
    """

    def __repr__(self) -> str:
        return f"Communicator(rank {self.rank} of {self.world_size}, {type(self._transport).__name__})"

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
        place = self.arena.find(tensor) if tensor.is_contiguous() else None
        if place is not None:
            sequence = self.post(
                Kind.ALL_REDUCE, tensor, tensor.numel(), place, operator=operator, scale=scale, label=label
            )
            return Work(self, sequence, label)
        return Staged(
            self, Kind.ALL_REDUCE, [tensor], [tensor], slots=1, operator=operator, scale=scale, label=label
        ).start()

    def broadcast(self, tensor: torch.Tensor, root: int = 0, *, label: str = "") -> Work:
        """Starts copying the tensor of rank ``root`` to all others, in place; any dtype."""
        place = self.arena.find(tensor) if is_plain(tensor) and tensor.is_contiguous() else None
        if place is not None:
            return Work(self, self.post(Kind.BROADCAST, tensor, tensor.numel(), place, root=root, label=label), label)
        return Staged(self, Kind.BROADCAST, [tensor], [tensor], slots=1, root=root, label=label).start()

    def all_gather(self, outputs: Sequence[torch.Tensor], tensor: torch.Tensor, *, label: str = "") -> Work:
        """Starts collecting the ranks' tensors into ``outputs``, in rank order; any dtype, equal sizes."""
        _check_parts(outputs, tensor, self.world_size)
        return Staged(self, Kind.ALL_GATHER, [tensor], outputs, slots=self.world_size, label=label).start()

    def reduce_scatter(
        self, output: torch.Tensor, tensors: Sequence[torch.Tensor], op: str = "sum", *, label: str = ""
    ) -> Work:
        """Starts combining ``tensors[r]`` of all ranks into the ``output`` of rank r; see ``all_reduce``."""
        _check_parts(tensors, output, self.world_size)
        operator, output = _reducible(output, op, 1.0)
        inputs = [_reducible(tensor, op, 1.0)[1] for tensor in tensors]
        return Staged(
            self, Kind.REDUCE_SCATTER, inputs, [output], slots=self.world_size, operator=operator, label=label
        ).start()

    def barrier(self, *, label: str = "") -> Work:
        """Starts waiting until all ranks have come here."""
        return Work(self, self.post(Kind.BARRIER, None, 0, Place(0, 0), label=label), label)

    def supports(self, tensor: torch.Tensor) -> bool:
        """Whether ``all_reduce`` takes this tensor: dense, on the CPU, of a real dtype."""
        return is_plain(tensor) and (tensor.dtype in ELEMENT_TYPES or tensor.dtype == torch.bool)


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
