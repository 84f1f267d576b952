"""Only the largest elements of a bucket travel: ``topk`` (Aji and Heafield, 2017; Stich et al., 2018)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from autopar.errors import OptionError
from autopar.partitioner.plan import BucketSpec, ParameterSpec
from autopar.passes.changing.compression import Compression, is_real

__all__ = ["TopK"]

_INDEX = 4  # bytes


@dataclass(frozen=True, slots=True)
class TopK(Compression):
    """Sends of each bucket the elements of the largest magnitude, each rank its own, with their places.

    Exact at ``ratio=1``.

    Args:
        ratio: share of a bucket's elements that travels, above 0 and at most 1.
        error_feedback: add what did not travel to the gradients of the next step.

    Raises:
        OptionError: ``ratio`` is out of that range.
    """

    ratio: float
    error_feedback: bool = True
    name: ClassVar[str] = "topk"

    def __post_init__(self) -> None:
        number = isinstance(self.ratio, (int, float)) and not isinstance(self.ratio, bool)
        if not number or not 0 < self.ratio <= 1:
            raise OptionError(
                f"The option ratio of pass 'topk' is {self.ratio!r}.", mend="It must be above 0 and at most 1."
            )

    def refusal(self, bucket: BucketSpec, members: Sequence[ParameterSpec]) -> str:
        """It has no real numbers, or too many for the places."""
        if not is_real(bucket):
            return f"its gradients are {bucket.layout} {bucket.dtype}, and topk takes dense real numbers"
        return "it has more elements than a place of 4 bytes can tell" if _numel(members) >= 2**31 else ""

    def wire_nbytes(self, members: Sequence[ParameterSpec]) -> int:
        """A value and a place each."""
        return self.kept(_numel(members)) * (members[0].itemsize + _INDEX)

    def kept(self, numel: int) -> int:
        """How many of so many elements travel."""
        return max(1, math.ceil(self.ratio * numel))


def _numel(members: Sequence[ParameterSpec]) -> int:
    return sum(spec.numel for spec in members)
