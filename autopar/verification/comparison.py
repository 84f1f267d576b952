"""Compares the tensors of two trainings, and remembers how far apart they came."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

__all__ = ["Difference", "Tally", "unequal"]

_SMALLEST = torch.finfo(torch.float64).tiny


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Where two trainings part.

    Attributes:
        step: from 0; -1 is the start, before any step.
        rank: whose value it is.
        kind: what it is a value of, such as ``"gradients"``.
        name: of the tensor.
        against: what it was compared with.
        largest: the largest difference of two elements; infinite where shapes or dtypes differ.
        allowed: how much would have been right; 0 where the bits must be equal.
        index: of the element with the largest difference.
        got, expected: the two elements, or what the tensors are.
        differing: elements that differ by more than is right.
        values: elements in all.
        operation: the first operation of the program whose result differs, where that was found out.
    """

    step: int
    rank: int
    kind: str
    name: str
    against: str
    largest: float
    allowed: float = 0.0
    index: tuple[int, ...] = ()
    got: str = ""
    expected: str = ""
    differing: int = 0
    values: int = 0
    operation: str = ""

    def __str__(self) -> str:
        where = "At the start" if self.step < 0 else f"Step {self.step}"
        what = self.name if self.kind in ("outputs", "random numbers") else f"the {self.kind[:-1]} of {self.name!r}"
        if math.isinf(self.largest) and not self.index:
            detail = f"it is {self.got} where {self.expected} is right"
        else:
            place = f"[{', '.join(map(str, self.index))}]" if self.index else "it"
            detail = (
                f"{place} is {self.got} where {self.expected} is right, "
                f"and {self.differing:,} of {self.values:,} values differ by up to {self.largest:.3g}"
            )
            detail += f" ({self.allowed:.3g} allowed)" if self.allowed else ""
        first = f" The first operation that differs is {self.operation}." if self.operation else ""
        return f"{where}, rank {self.rank}: {what} differs from {self.against}: {detail}.{first}"


@dataclass(slots=True)
class Tally:
    """What has been compared so far of one kind, with one yardstick.

    Attributes:
        kind: such as ``"gradients"``.
        against: what with.
        rule: how close it must be, in words.
        tensors, values: compared so far; a tensor counts once for each rank and step.
        largest: the largest difference, and ``allowed`` what was right there.
        place: where that was.
    """

    kind: str
    against: str
    rule: str
    tensors: int = 0
    values: int = 0
    largest: float = 0.0
    allowed: float = 0.0
    place: str = ""
    ok: bool = True
    _highest: float = 0.0

    def take(
        self,
        name: str,
        got: torch.Tensor | None,
        expected: torch.Tensor | None,
        *,
        step: int,
        rank: int,
        slack: torch.Tensor | float | None = None,
    ) -> Difference | None:
        """Compares one tensor.

        Args:
            name: of the tensor.
            got: the parallel training's; None where there is none, such as a gradient.
            expected: the plain training's.
            step, rank: whose.
            slack: how far each element may be off; None wants equal bits.

        Returns:
            The difference, where there is one.
        """
        self.tensors += 1
        self.values += 0 if got is None else got.numel()
        if got is None or expected is None or got.shape != expected.shape or got.dtype != expected.dtype:
            if got is None and expected is None:
                return None
            self.ok, self.largest, self.place = False, math.inf, f"{name}, step {step}"
            return self._difference(name, step, rank, math.inf, got=_kind_of(got), expected=_kind_of(expected))
        if not got.numel():
            return None
        apart = _apart(got, expected)
        wrong = unequal(got, expected) if slack is None else ~(apart <= slack)
        position, limit = _worst(apart, slack)
        largest = float(apart.flatten()[position])
        if (ratio := largest / limit if limit else largest) > self._highest:
            self._highest, self.largest, self.allowed, self.place = ratio, largest, limit, f"{name}, step {step}"
        if not bool(wrong.any()):
            return None
        self.ok = False
        if not bool(wrong.flatten()[position]):  # a sign of zero, which is no distance
            position = int(wrong.flatten().to(torch.uint8).argmax())
        index = tuple(int(i) for i in torch.unravel_index(torch.tensor(position), got.shape))
        return self._difference(
            name,
            step,
            rank,
            largest,
            index=index,
            got=_number(got.flatten()[position]),
            expected=_number(expected.flatten()[position]),
            differing=int(wrong.sum()),
            values=got.numel(),
            allowed=limit,
        )

    def _difference(self, name: str, step: int, rank: int, largest: float, **more: object) -> Difference:
        return Difference(
            step=step,
            rank=rank,
            kind=self.kind,
            name=name,
            against=self.against,
            largest=largest,
            **more,  # type: ignore[arg-type]
        )


def unequal(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Which elements differ in any bit; two that are no number are equal.

    >>> unequal(torch.tensor([1.0, -0.0, math.nan]), torch.tensor([1.0, 0.0, math.nan]))
    tensor([False,  True, False])
    """
    if one.is_complex():
        return unequal(torch.view_as_real(one), torch.view_as_real(other)).any(-1)
    differ = one != other
    if not one.is_floating_point():
        return differ
    unknown = one.isnan() & other.isnan()
    return (differ | (one.signbit() != other.signbit())) & ~unknown


def _apart(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    wide = torch.complex128 if one.is_complex() else torch.float64
    apart = (one.to(wide) - other.to(wide)).abs()
    return torch.where(unequal(one, other), apart.nan_to_num(math.inf), 0.0)


def _worst(apart: torch.Tensor, slack: torch.Tensor | float | None) -> tuple[int, float]:
    """Position of the element that is furthest off for what it may be, and what it may be; 0 without a slack."""
    if slack is None or isinstance(slack, float):
        return int(apart.argmax()), slack or 0.0
    position = int((apart / slack.clamp_min(_SMALLEST)).argmax())
    return position, float(slack.flatten()[position])


def _kind_of(tensor: torch.Tensor | None) -> str:
    return "nothing" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _number(element: torch.Tensor) -> str:
    value = element.item()
    return f"{value:.9g}" if isinstance(value, (float, complex)) else str(value)
