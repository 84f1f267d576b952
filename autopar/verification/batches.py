"""The batches of a verification: one sample call, turned a little further at each step, whole and in parts."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from autopar import compat
from autopar.errors import UsageError
from autopar.verification.training import Call

__all__ = ["Batches", "filled"]


class Batches:
    """Cuts one call into batches.

    At step k every tensor with the batch in it is rolled by k samples, so that the parts hold other samples
    at each step, all of them the user's. Tensors of another size along ``dim`` go to every part whole.

    Args:
        call: positional and keyword arguments.
        parts: how many there are.
        dim: dim of the batch.
        equal: leave out what does not divide, so that all parts have one size.

    Attributes:
        size: samples in a batch that are used.
        dropped: samples that are not.

    Raises:
        UsageError: there is no batch, or it has fewer samples than parts.
    """

    def __init__(self, call: Call, *, parts: int, dim: int, equal: bool) -> None:
        self.call, self.parts, self.dim = call, parts, dim
        leaves, _ = compat.tree_flatten(call)
        self.tensors = [leaf.detach() for leaf in leaves if isinstance(leaf, torch.Tensor)]
        total = next((tensor.size(dim) for tensor in self.tensors if tensor.dim() > dim), 0)
        if total < parts:
            raise UsageError(
                f"The sample call has {total} samples along dim {dim}, which cannot be divided over {parts} parts.",
                mend=f"Give inputs with {parts} samples or more, such as --input {2 * parts}x10.",
            )
        self.size = total - total % parts if equal else total
        self.dropped = total - self.size
        self._split = [tensor.dim() > dim and tensor.size(dim) == total for tensor in self.tensors]

    def whole(self, step: int) -> list[torch.Tensor]:
        """The tensors of a step's whole batch."""
        return [
            tensor.roll(step, self.dim).narrow(self.dim, 0, self.size) if split else tensor.clone()
            for tensor, split in zip(self.tensors, self._split, strict=True)
        ]

    def part(self, step: int, index: int) -> list[torch.Tensor]:
        """The tensors of one part of it; parts are of equal size."""
        share = self.size // self.parts
        return [
            tensor.narrow(self.dim, index * share, share).clone() if split else tensor
            for tensor, split in zip(self.whole(step), self._split, strict=True)
        ]


def filled(call: Call, tensors: Sequence[torch.Tensor]) -> Call:
    """The call with other tensors in the place of its own."""
    leaves, spec = compat.tree_flatten(call)
    flowing = iter(tensors)
    args, kwargs = compat.tree_unflatten(
        [next(flowing) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves], spec
    )
    return args, kwargs
