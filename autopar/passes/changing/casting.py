"""Gradients travel, and are summed, in another dtype: ``fp16``, ``bf16`` and ``reduce-dtype``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from autopar.errors import OptionError
from autopar.partitioner.plan import BucketSpec, ParameterSpec
from autopar.passes.changing.compression import Compression, is_real

__all__ = ["BF16", "FP16", "ReduceDtype"]

_ITEMSIZES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


class _Cast(Compression):
    """A sum of numbers g of N ranks is within N * u * sum(abs(g)) of the exact one, where u is the dtype's.

    Every rank rounds once, and so does each of the N - 1 additions. Below the dtype's normal range it is as if
    the numbers were the smallest normal one.
    """

    def refusal(self, bucket: BucketSpec, members: Sequence[ParameterSpec]) -> str:
        """It has no real numbers, or small ones."""
        if not is_real(bucket):
            return f"its gradients are {bucket.layout} {bucket.dtype}, and {self.name} takes dense real numbers"
        return f"its gradients are {bucket.dtype} already" if members[0].itemsize <= 2 else ""

    def wire_nbytes(self, members: Sequence[ParameterSpec]) -> int:
        """Two bytes an element."""
        return 2 * sum(spec.numel for spec in members)


@dataclass(frozen=True, slots=True)
class FP16(_Cast):
    """Sends gradients as IEEE half precision, u = 2**-11; a sum that overflows is sent again as it is."""

    name: ClassVar[str] = "fp16"


@dataclass(frozen=True, slots=True)
class BF16(_Cast):
    """Sends gradients as bfloat16, u = 2**-8, with the range of float32."""

    name: ClassVar[str] = "bf16"


@dataclass(frozen=True, slots=True)
class ReduceDtype(Compression):
    """Sums gradients in that dtype and rounds the mean to the parameters' own; a wider one rounds once, at the end.

    Args:
        dtype: ``float16``, ``bfloat16``, ``float32`` or ``float64``.

    Raises:
        OptionError: it is none of these.
    """

    dtype: str
    name: ClassVar[str] = "reduce-dtype"
    may_be_idle: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.dtype not in _ITEMSIZES:
            raise OptionError(
                f"Gradients cannot be reduced in {self.dtype!r}.", mend=f"Known: {', '.join(_ITEMSIZES)}."
            )

    def refusal(self, bucket: BucketSpec, members: Sequence[ParameterSpec]) -> str:
        """It has that dtype, or no real numbers."""
        if not is_real(bucket):
            return f"its gradients are {bucket.layout} {bucket.dtype}, and dense real numbers have a dtype to choose"
        return f"its gradients are {self.dtype} already" if bucket.dtype == self.dtype else ""

    def wire_nbytes(self, members: Sequence[ParameterSpec]) -> int:
        """An element each."""
        return _ITEMSIZES[self.dtype] * sum(spec.numel for spec in members)
