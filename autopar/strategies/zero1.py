"""``zero1``: as ``ddp``, and the optimizer's state is divided among the ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from autopar.strategies.ddp import DDP

__all__ = ["ZeRO1"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeRO1(DDP):
    """Distributed data parallelism with a sharded optimizer (Rajbhandari et al., SC 2020, stage 1).

    Gradients are averaged as by ``ddp``. ``optimizer.step()`` then updates an equal share of the elements on each
    rank, which alone has state for them, and collects the others' shares. The optimizer is given to
    ``autopar.parallelize(model, "zero1", optimizer=optimizer)``; one that is made later to ``autopar.shard_optimizer``.
    The options are those of ``DDP``.
    """

    name: ClassVar[str] = "zero1"
