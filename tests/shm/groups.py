"""What the tests of shared memory share: a communicator beside a gloo group, on every rank."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from autopar.runtime.agreement import exchange
from autopar.runtime.group import join
from autopar.shm import Communicator, connect

__all__ = ["communicating", "gloo", "values"]


@contextmanager
def communicating(timeout: float = 20.0, reserve: int = 0) -> Iterator[Communicator]:
    """Joins the launcher's group and connects its ranks through shared memory."""
    group = join(torch.device("cpu"), timeout=20.0)
    found = connect(
        group.rank, group.world_size, lambda value: exchange(group, value), timeout=timeout, reserve=reserve
    )
    assert isinstance(found, Communicator), found
    yield found
    found.close()


def values(count: int, dtype: torch.dtype, rank: int | None = None) -> torch.Tensor:
    """Numbers of a rank (this one), whose sums are rounded in floating point and wrap around in small integers."""
    number = int(os.environ["RANK"]) if rank is None else rank
    numbers = torch.randn(count, generator=torch.Generator().manual_seed(1000 * number + count)) * 50
    return numbers > 0 if dtype == torch.bool else numbers.to(torch.int64 if dtype == torch.uint8 else dtype).to(dtype)


def gloo(tensor: torch.Tensor, op: str) -> torch.Tensor:
    """What gloo makes of a copy of the tensor."""
    result = tensor.clone()
    dist.all_reduce(result, getattr(dist.ReduceOp, op.upper()))
    return result
