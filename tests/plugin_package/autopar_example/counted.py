"""A strategy: ``ddp`` with the pass of this package in its pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from autopar.strategies import DDP


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted(DDP):
    """Distributed data parallelism that says what the model consists of."""

    name: ClassVar[str] = "counted"

    def pipeline(self) -> str:
        """The one of ``ddp``, with the count before buckets are made."""
        return DDP.pipeline(self).replace("backward-order", "count-operations{most=1},backward-order")
