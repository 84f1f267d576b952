"""How far two steps of one model are apart, in units in the last place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

__all__ = ["LIMIT", "Difference", "largest", "ulps"]

LIMIT = 4.0  # ULPs of a tensor's largest magnitude that may come from another order of the same sums


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest difference between two collections of tensors.

    Attributes:
        ulps: 0 where all bits are equal; infinite where no number says it.
        where: name of the tensor.
    """

    ulps: float = 0.0
    where: str = ""

    def __str__(self) -> str:
        return f"{self.ulps:.3g} ULP in {self.where}" if self.ulps else "bitwise equal"


def largest(ones: Mapping[str, torch.Tensor | None], others: Mapping[str, torch.Tensor | None]) -> Difference:
    """The largest difference of two collections, tensor by tensor."""
    return max(_differences(ones, others), key=lambda found: found.ulps, default=Difference())


def _differences(
    ones: Mapping[str, torch.Tensor | None], others: Mapping[str, torch.Tensor | None]
) -> Iterator[Difference]:
    for name in ones.keys() ^ others.keys():
        yield Difference(math.inf, f"{name}, which one of the two has alone")
    for name in ones.keys() & others.keys():
        distance = ulps(ones[name], others[name])
        if distance:
            yield Difference(distance, name)


def ulps(one: torch.Tensor | None, other: torch.Tensor | None) -> float:
    """The largest difference of two tensors, divided by the spacing of numbers at their largest magnitude.

    >>> ulps(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 2.0**-23]))
    1.0
    >>> ulps(torch.tensor([1, 2]), torch.tensor([1, 3]))
    inf
    """
    if one is None or other is None:
        return 0.0 if one is other else math.inf
    if one.layout != torch.strided or other.layout != torch.strided:
        if one.layout != other.layout:
            return math.inf
        one, other = one.to_dense(), other.to_dense()
    if one.shape != other.shape or one.dtype != other.dtype:
        return math.inf
    if torch.equal(one, other):
        return 0.0
    if one.is_complex():
        one, other = torch.view_as_real(one), torch.view_as_real(other)
    if not one.is_floating_point():
        return math.inf
    known = one.isfinite()
    if not torch.equal(one[~known].nan_to_num(), other[~known].nan_to_num()) or not torch.equal(
        known, other.isfinite()
    ):
        return math.inf
    a, b = one[known].double(), other[known].double()
    apart = (a - b).abs().max().item() if a.numel() else 0.0
    scale = max(a.abs().max().item(), b.abs().max().item()) if a.numel() else 0.0
    return float(apart / (scale * torch.finfo(one.dtype).eps)) if apart else 0.0
