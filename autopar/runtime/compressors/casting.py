"""``fp16``, ``bf16`` and ``reduce-dtype``: the sum of a bucket in another dtype."""

from __future__ import annotations

import torch

from autopar.runtime.collectives import Work
from autopar.runtime.compressors.base import Wire

__all__ = ["Casting"]


class Casting:
    """Sums copies of the messages in another dtype, and rounds the result to the messages' own.

    Where the sum of narrower copies is not finite, which all ranks see alike, the messages are summed again as they
    are: what overflowed on the way is right then, and what was not finite stays so.

    Args:
        dtype: of the copies.
        wire: what they travel through.
    """

    def __init__(self, dtype: torch.dtype, wire: Wire) -> None:
        self._dtype, self._wire = dtype, wire
        self._copy: torch.Tensor | None = None

    def start(self, flat: torch.Tensor, scale: float, label: str) -> Work:
        """Sends the copy."""
        if self._copy is None:
            self._copy = self._wire.empty(flat.numel(), self._dtype, flat.device)
        if self._dtype.itemsize > flat.dtype.itemsize:
            work = self._wire.all_reduce(self._copy.copy_(flat).mul_(scale), label)
            return _Widened(work, self._copy, flat)
        self._copy.copy_(flat.mul_(scale))
        return _Narrowed(self._wire.all_reduce(self._copy, label), self._copy, flat, self._wire, label)


class _Widened:
    def __init__(self, work: Work, copy: torch.Tensor, flat: torch.Tensor) -> None:
        self._work, self._copy, self._flat = work, copy, flat

    def wait(self) -> None:
        self._work.wait()
        self._flat.copy_(self._copy)


class _Narrowed:
    def __init__(self, work: Work, copy: torch.Tensor, flat: torch.Tensor, wire: Wire, label: str) -> None:
        self._work, self._copy, self._flat, self._wire, self._label = work, copy, flat, wire, label

    def wait(self) -> None:
        self._work.wait()
        if self._copy.isfinite().all():
            self._flat.copy_(self._copy)
        else:
            self._wire.all_reduce(self._flat, f"{self._label}, again in {self._flat.dtype}").wait()
