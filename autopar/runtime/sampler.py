"""Which samples each rank reads, from any place of an epoch on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DistributedSampler

__all__ = ["RankSampler"]


class RankSampler(DistributedSampler[Any]):
    """torch's ``DistributedSampler``, which can begin in the middle of an epoch.

    Step after step the ranks together read the epoch's order from its front, whatever their number is and whatever
    their batch size. So a place in it is one number, and what is left can be dealt to another number of ranks.

    Attributes:
        read: samples of the current epoch that all ranks together have read before.
    """

    read = 0

    def set_epoch(self, epoch: int) -> None:
        """Another epoch begins at its first sample."""
        if epoch != self.epoch:
            self.read = 0
        super().set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        if not self.read:
            return super().__iter__()
        order = self._order()[self.read :]
        size = self.num_replicas
        if self.drop_last:
            order = order[: len(order) // size * size]
        else:
            missing = -len(order) % size
            whole = self._order()
            order += (whole * (missing // len(whole) + 1))[:missing]
        return iter(order[self.rank :: size])

    def _order(self) -> list[int]:
        """All samples in the order of this epoch, as the base class has it."""
        count = len(self.dataset)  # type: ignore[arg-type]
        if not self.shuffle:
            return list(range(count))
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return torch.randperm(count, generator=generator).tolist()
