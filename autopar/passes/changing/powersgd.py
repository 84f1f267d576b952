"""Gradients of matrices travel as products of two thin ones: ``powersgd`` (Vogels, Karimireddy and Jaggi, 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from autopar.errors import OptionError
from autopar.partitioner.plan import BucketSpec, ParameterSpec
from autopar.passes.changing.compression import Compression, is_real

__all__ = ["PowerSGD"]


@dataclass(frozen=True, slots=True)
class PowerSGD(Compression):
    """Sends each gradient of two or more dims as its best product of that rank that one power iteration finds.

    Exact where the rank of the mean gradient is no larger than ``rank``. What is not a matrix, or would not become
    smaller, travels as it is, in the same message.

    Args:
        rank: columns of the thin matrices, 1 or more.
        error_feedback: add what did not travel to the gradients of the next step.

    Raises:
        OptionError: ``rank`` is no positive number.
    """

    rank: int
    error_feedback: bool = True
    name: ClassVar[str] = "powersgd"

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise OptionError(f"The option rank of pass 'powersgd' is {self.rank!r}.", mend="It must be 1 or more.")

    def refusal(self, bucket: BucketSpec, members: Sequence[ParameterSpec]) -> str:
        """It has no matrix of which two thin ones are smaller."""
        if not is_real(bucket) or members[0].itemsize < 4:
            return f"its gradients are {bucket.layout} {bucket.dtype}, and powersgd takes dense float32 and float64"
        if not any(self.sides(spec.shape) for spec in members):
            return f"it has no matrix that becomes smaller at rank {self.rank}"
        return ""

    def wire_nbytes(self, members: Sequence[ParameterSpec]) -> int:
        """The thin matrices, and the rest as it is."""
        sides = [self.sides(spec.shape) for spec in members]
        elements = [
            spec.numel if found is None else self.rank * sum(found) for spec, found in zip(members, sides, strict=True)
        ]
        return members[0].itemsize * sum(elements)

    def sides(self, shape: Sequence[int]) -> tuple[int, int] | None:
        """Rows and columns of a gradient as a matrix; None where it travels as it is."""
        if len(shape) < 2 or 0 in shape:
            return None
        rows, columns = shape[0], 1
        for size in shape[1:]:
            columns *= size
        return (rows, columns) if self.rank * (rows + columns) < rows * columns else None
