"""Parameters side by side in one flat tensor, of which each rank updates an equal share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from autopar.runtime.bucket import dense_strides
from autopar.runtime.collectives import Collectives, Work

__all__ = ["Segment", "in_memory_order", "segments_of"]

_CAPACITY = 25 * 1024 * 1024  # bytes: the old memory of a segment's parameters is given up before the next is made


class Segment:
    """Some parameters, whose memory it becomes, and this rank's share of them.

    Args:
        parameters: of one dtype and device.
        rank: this rank.
        world_size: how many shares there are.

    Attributes:
        parameters: as given.
        pieces: for the parameters that lie in this rank's share, at least in part: that part as a parameter of its
            own, of shape (n,), in the same memory.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], *, rank: int, world_size: int) -> None:
        self.parameters, self.rank = list(parameters), rank
        first = self.parameters[0]
        numel = sum(parameter.numel() for parameter in self.parameters)
        self.share = -(-numel // world_size)
        self._flat = torch.zeros(self.share * world_size, dtype=first.dtype, device=first.device)
        self.pieces: dict[nn.Parameter, nn.Parameter] = {}
        self._parts: dict[nn.Parameter, slice] = {}
        self._addresses: list[int] = []
        start, end = rank * self.share, (rank + 1) * self.share
        for parameter, offset in self.places():
            view = self._flat.as_strided(parameter.shape, dense_strides(parameter), offset)
            view.copy_(parameter.detach())
            parameter.data = view
            self._addresses.append(view.data_ptr())
            part = slice(max(start - offset, 0), min(end - offset, parameter.numel()))
            if part.start < part.stop:
                self._parts[parameter] = part
                self.pieces[parameter] = nn.Parameter(self._flat[offset + part.start : offset + part.stop])

    def places(self) -> Iterator[tuple[nn.Parameter, int]]:
        """The parameters, with the index of each one's first element in the flat tensor."""
        offset = 0
        for parameter in self.parameters:
            yield parameter, offset
            offset += parameter.numel()

    def holds(self) -> bool:
        """Whether the parameters still are in this memory."""
        return [parameter.data_ptr() for parameter in self.parameters] == self._addresses

    def part(self, parameter: nn.Parameter, whole: torch.Tensor) -> torch.Tensor:
        """This rank's part of a tensor that belongs to a parameter with a piece and has its shape; of shape (n,)."""
        return in_memory_order(whole, parameter)[self._parts[parameter]]

    def gather(self, collectives: Collectives, label: str) -> Work:
        """Starts collecting every rank's share of the parameters."""
        return self.gather_into(collectives, self._flat, label)

    def gather_into(self, collectives: Collectives, flat: torch.Tensor, label: str) -> Work:
        """Starts collecting every rank's share of a tensor that is laid out as this segment is."""
        rows = flat.view(-1, self.share)
        return collectives.all_gather(rows, rows[self.rank], label)

    def lay_out(self, value_of: Callable[[nn.Parameter], torch.Tensor | None], dtype: torch.dtype) -> torch.Tensor:
        """A flat tensor with this rank's values in its share, for ``gather_into``; zeros where there is none.

        Args:
            value_of: the values of a piece, or None.
            dtype: theirs.
        """
        flat = torch.zeros(self._flat.numel(), dtype=dtype, device=self._flat.device)
        for parameter, offset in self.places():
            value = value_of(self.pieces[parameter]) if parameter in self.pieces else None
            if value is not None:
                part = self._parts[parameter]
                flat[offset + part.start : offset + part.stop].copy_(value)
        return flat


def segments_of(parameters: Sequence[nn.Parameter], *, rank: int, world_size: int) -> list[Segment]:
    """Divides parameters into segments: of one dtype and device each, and of bounded size."""
    kinds: dict[tuple[torch.dtype, torch.device], list[list[nn.Parameter]]] = {}
    for parameter in parameters:
        groups = kinds.setdefault((parameter.dtype, parameter.device), [[]])
        if groups[-1] and sum(p.nbytes for p in groups[-1]) + parameter.nbytes > _CAPACITY:
            groups.append([])
        groups[-1].append(parameter)
    return [Segment(group, rank=rank, world_size=world_size) for groups in kinds.values() for group in groups]


def in_memory_order(tensor: torch.Tensor, parameter: nn.Parameter) -> torch.Tensor:
    """The elements of a tensor in the order in which the parameter's lie in memory, of shape (numel,)."""
    if tensor.stride() != parameter.stride():
        tensor = torch.empty_strided(
            parameter.shape, parameter.stride(), dtype=tensor.dtype, device=tensor.device
        ).copy_(tensor)
    return tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())
