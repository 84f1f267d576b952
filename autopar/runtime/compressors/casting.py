"""``fp16`` and ``bf16``: the sum of a bucket in another dtype."""

from __future__ import annotations

import torch

from autopar.runtime.collectives import Work
from autopar.runtime.compressors.base import Wire

__all__ = ["Casting"]


class Casting:
    """Sums copies of the messages in a narrower dtype.

    Where the sum is not finite, which all ranks see alike, the messages are summed again as they are: what
    overflowed on the way is right then, and what was not finite stays so.

    Args:
        dtype: of the copies.
        wire: what they travel through.
    """

    def __init__(self, dtype: torch.dtype, wire: Wire) -> None:
        self._dtype, self._wire = dtype, wire
        self._narrow: torch.Tensor | None = None

    def start(self, flat: torch.Tensor, label: str) -> Work:
        """Sends the copy."""
        if self._narrow is None:
            self._narrow = self._wire.empty(flat.numel(), self._dtype, flat.device)
        self._narrow.copy_(flat)
        return _Cast(self._wire.all_reduce(self._narrow, label), self._narrow, flat, self._wire, label)


class _Cast:
    def __init__(self, work: Work, narrow: torch.Tensor, flat: torch.Tensor, wire: Wire, label: str) -> None:
        self._work, self._narrow, self._flat, self._wire, self._label = work, narrow, flat, wire, label

    def wait(self) -> None:
        self._work.wait()
        if self._narrow.isfinite().all():
            self._flat.copy_(self._narrow)
        else:
            self._wire.all_reduce(self._flat, f"{self._label}, again in {self._flat.dtype}").wait()
