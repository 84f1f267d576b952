"""``topk``: every rank sends its largest elements and adds up those of all."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from autopar.passes.changing.topk import TopK
from autopar.runtime.collectives import Work
from autopar.runtime.compressors.base import Wire

__all__ = ["Largest"]


class Largest:
    """Gathers the largest elements of all ranks in one message of values and places.

    Args:
        method: how many, and whether the others are kept for the next step.
        shapes: of the bucket's parameters.
        wire: what they travel through.
    """

    def __init__(self, method: TopK, shapes: Sequence[torch.Size], wire: Wire) -> None:
        self._method, self._wire = method, wire
        self._kept: torch.Tensor | None = None  # what has not travelled so far

    def start(self, flat: torch.Tensor, scale: float, label: str) -> Work:
        """Sends the largest elements of message and remainder."""
        flat.mul_(scale)
        total = flat.clone() if self._kept is None else self._kept.add_(flat)
        places = total.abs().topk(self._method.kept(total.numel()), sorted=False).indices
        values = total[places]
        if self._method.error_feedback:
            # A step that overflowed, which a gradient scaler leaves out, must not stay in later ones.
            self._kept = total.index_fill_(0, places, 0).nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        mine = torch.cat([values.view(torch.uint8), places.to(torch.int32).view(torch.uint8)])
        rows = mine.new_empty((self._wire.world_size, mine.numel()))
        return _Gathered(self._wire.all_gather(rows, mine, label), rows, values.nbytes, flat)


class _Gathered:
    def __init__(self, work: Work, rows: torch.Tensor, values_nbytes: int, flat: torch.Tensor) -> None:
        self._work, self._rows, self._split, self._flat = work, rows, values_nbytes, flat

    def wait(self) -> None:
        self._work.wait()
        flat = self._flat.zero_()
        for rank, row in enumerate(self._rows):  # in this order on all ranks; no place comes twice in a row
            values = row[: self._split].clone().view(flat.dtype)
            places = row[self._split :].clone().view(torch.int32).long()
            if rank == 0:
                flat.index_copy_(0, places, values)
            else:
                flat.index_add_(0, places, values)
