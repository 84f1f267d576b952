"""Keeps the buffers that forward writes equal on all ranks: rank 0's, one flat message a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from autopar.runtime.collectives import Collectives, Work
from autopar.runtime.slots import StateSlots

__all__ = ["BufferBroadcast"]

_ALIGNMENT = 16


class BufferBroadcast:
    """Sends rank 0's buffers at the start of backward, and hides the message behind it.

    DistributedDataParallel sends them before the next forward instead; the values that training
    uses are the same, but here all ranks also agree after the last step.

    Args:
        model: the owner of the buffers.
        names: buffers to keep equal.
        collectives: the backend.
        rank: this rank among those of the backend.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], collectives: Collectives, rank: int) -> None:
        self.slots = StateSlots(model, names)
        self._owners = [model.get_submodule(path) for path in dict.fromkeys(n.rpartition(".")[0] for n in names)]
        self.collectives, self.rank = collectives, rank
        self._flat: torch.Tensor | None = None
        self._segments: list[torch.Tensor] = []
        self._work: Work | None = None

    def launch(self) -> None:
        """Starts the message unless all owners are in eval mode, as in evaluation on one rank; ``wait`` ends it."""
        if not any(owner.training for owner in self._owners):
            return
        buffers = self.slots.read()
        with torch.no_grad():
            self._pack(buffers)
            assert self._flat is not None
            self._work = self.collectives.broadcast(self._flat, "the buffers of the model")

    def wait(self) -> None:
        """Finishes the message that is on its way, if any, and takes rank 0's values over."""
        if self._work is None:
            return
        self._work.wait()
        self._work = None
        if self.rank != 0:
            # Through .data, which has a version counter of its own: a backward that is still to come
            # (two forwards, then one backward) holds batch norm statistics that it does not read.
            torch._foreach_copy_([buffer.data for buffer in self.slots.read()], self._segments)

    def _pack(self, buffers: Sequence[torch.Tensor]) -> None:
        if self._flat is None or self._flat.device != buffers[0].device:
            sizes = [-(-b.numel() * b.element_size() // _ALIGNMENT) * _ALIGNMENT for b in buffers]
            self._flat = self.collectives.empty(sum(sizes), torch.uint8, buffers[0].device).zero_()
            self._segments, offset = [], 0
            for buffer, size in zip(buffers, sizes, strict=True):
                end = offset + buffer.numel() * buffer.element_size()
                self._segments.append(self._flat[offset:end].view(buffer.dtype).view(buffer.shape))
                offset += size
        if self.rank == 0:
            torch._foreach_copy_(self._segments, list(buffers))
