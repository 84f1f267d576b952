"""The contract of a compressor, and what it sends through."""

from __future__ import annotations

from typing import Protocol

import torch

from autopar.runtime.collectives import Collectives, Work

__all__ = ["Compressor", "Wire"]


class Compressor(Protocol):
    """Sums the messages of one bucket over the ranks, step after step; it may keep state from one to the next."""

    def start(self, flat: torch.Tensor, scale: float, label: str) -> Work:
        """Starts summing ``flat * scale``; once that was waited for, it holds the sum, the same bits on all ranks.

        Every rank sends the same collectives in the same order: what is decided on the way may only depend on
        what has been reduced. The message may be overwritten at once.
        """
        ...


class Wire:
    """A backend's collectives for one bucket, which counts what this rank puts into them.

    Attributes:
        nbytes: put in since somebody set it to 0.
        world_size: how many ranks there are.
    """

    def __init__(self, collectives: Collectives) -> None:
        self._collectives, self.world_size, self.nbytes = collectives, collectives.world_size, 0

    def empty(self, numel: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """An uninitialised tensor of shape (numel,), where ``all_reduce`` likes it best."""
        return self._collectives.empty(numel, dtype, device)

    def all_reduce(self, flat: torch.Tensor, label: str) -> Work:
        """Starts summing ``flat`` over all ranks, in place."""
        self.nbytes += flat.nbytes
        return self._collectives.all_reduce(flat, label)

    def all_gather(self, rows: torch.Tensor, flat: torch.Tensor, label: str) -> Work:
        """Starts copying each rank's ``flat`` into its row of ``rows``, of shape (world size, numel)."""
        self.nbytes += flat.nbytes
        return self._collectives.all_gather(rows, flat, label)
