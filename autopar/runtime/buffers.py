"""Keeps the buffers of a model equal on all ranks: one rank's, mostly in one flat message a step."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import nn

from autopar import compat
from autopar.runtime.agreement import copy_from_rank
from autopar.runtime.collectives import Collectives, Work
from autopar.runtime.group import Group
from autopar.runtime.slots import StateSlots

__all__ = ["BufferBroadcast"]

_ALIGNMENT = 16


class BufferBroadcast:
    """Sends rank 0's buffers at the start of backward, and hides the message behind it.

    DistributedDataParallel sends them before the next forward instead; the values that training
    uses are the same, but here all ranks also agree after the last step.

    What forward writes is sent every time. Of the other buffers only a flag is sent, which says
    whether rank 0 has changed one since the last step; they follow when it has. (On CUDA, where
    reading the flag would wait for the device, they are sent every time.)

    Args:
        model: the owner of the buffers.
        written: buffers that forward writes.
        constant: further buffers to keep equal.
        collectives: the backend.
        group: the ranks.

    Attributes:
        source: the rank whose buffers count; another than 0 while rank 0 has run out of batches.
    """

    def __init__(
        self,
        model: nn.Module,
        written: Sequence[str],
        constant: Collection[str],
        collectives: Collectives,
        group: Group,
    ) -> None:
        self.source = 0
        if constant and any(model.get_buffer(name).device.type != "cpu" for name in constant):
            written, constant = [*written, *constant], ()
        self.collectives, self.group = collectives, group
        self._written, self._constant = StateSlots(model, written), StateSlots(model, constant)
        owners = dict.fromkeys(name.rpartition(".")[0] for name in (*written, *constant))
        self._owners = [model.get_submodule(path) for path in owners]
        self._flag = [torch.zeros((), dtype=torch.uint8)] if constant else []
        self._seen: list[tuple[torch.Tensor, int]] = []
        self._flat: torch.Tensor | None = None
        self._segments: list[torch.Tensor] = []
        self._work: Work | None = None

    def launch(self) -> None:
        """Starts the message unless all owners are in eval mode, as in evaluation on one rank; ``wait`` ends it."""
        if not any(owner.training for owner in self._owners):
            return
        if self.source != 0:  # seldom enough to go without an overlap
            every = [*self._written.read(), *self._constant.read()]
            copy_from_rank(self.group, [buffer.data for buffer in every], rank=self.source)
            return
        if self._flag:
            self._flag[0].fill_(self._constants_changed())
        with torch.no_grad():
            self._pack([*self._written.read(), *self._flag])
            assert self._flat is not None
            self._work = self.collectives.broadcast(self._flat, "the buffers of the model")

    def wait(self) -> None:
        """Finishes the message that is on its way, if any, and takes rank 0's values over."""
        if self._work is None:
            return
        self._work.wait()
        self._work = None
        if self.group.rank != 0:
            # Through .data, which has a version counter of its own: a backward that is still to come
            # (two forwards, then one backward) holds batch norm statistics that it does not read.
            torch._foreach_copy_([*(buffer.data for buffer in self._written.read()), *self._flag], self._segments)
        if self._flag and self._flag[0]:
            copy_from_rank(self.group, [buffer.data for buffer in self._constant.read()])

    def _constants_changed(self) -> bool:
        """Whether any was replaced or written to since the last call; True at the first."""
        before, self._seen = self._seen, [(buffer, compat.version(buffer)) for buffer in self._constant.read()]
        return len(before) != len(self._seen) or any(
            one is not other or version != old for (one, version), (other, old) in zip(self._seen, before, strict=True)
        )

    def _pack(self, buffers: Sequence[torch.Tensor]) -> None:
        if self._flat is None or self._flat.device != buffers[0].device:
            sizes = [-(-b.numel() * b.element_size() // _ALIGNMENT) * _ALIGNMENT for b in buffers]
            self._flat = self.collectives.empty(sum(sizes), torch.uint8, buffers[0].device).zero_()
            self._segments, offset = [], 0
            for buffer, size in zip(buffers, sizes, strict=True):
                end = offset + buffer.numel() * buffer.element_size()
                self._segments.append(self._flat[offset:end].view(buffer.dtype).view(buffer.shape))
                offset += size
        if self.group.rank == 0:
            torch._foreach_copy_(self._segments, list(buffers))
