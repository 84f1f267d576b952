"""Gradients travel as 16-bit numbers: ``fp16`` and ``bf16``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from autopar.partitioner.plan import BucketSpec, ParameterSpec
from autopar.passes.changing.compression import Compression, is_real

__all__ = ["BF16", "FP16"]

_ITEMSIZE = 2


class _Cast(Compression):
    """A sum of numbers g of N ranks is within N * u * sum(abs(g)) of the exact one, where u is the dtype's.

    Every rank rounds once, and so does each of the N - 1 additions. Below the dtype's normal range it is as if
    the numbers were the smallest normal one.
    """

    def refusal(self, bucket: BucketSpec, members: Sequence[ParameterSpec]) -> str:
        """It has no real numbers, or small ones."""
        if not is_real(bucket):
            return f"its gradients are {bucket.layout} {bucket.dtype}, and {self.name} takes dense real numbers"
        return f"its gradients are {bucket.dtype} already" if members[0].itemsize <= _ITEMSIZE else ""

    def wire_nbytes(self, members: Sequence[ParameterSpec]) -> int:
        """Two bytes an element."""
        return _ITEMSIZE * sum(spec.numel for spec in members)


@dataclass(frozen=True, slots=True)
class FP16(_Cast):
    """Sends gradients as IEEE half precision, u = 2**-11; a sum that overflows is sent again as it is."""

    name: ClassVar[str] = "fp16"


@dataclass(frozen=True, slots=True)
class BF16(_Cast):
    """Sends gradients as bfloat16, u = 2**-8, with the range of float32."""

    name: ClassVar[str] = "bf16"
