"""What parity tests share: a model through autopar, its twin, and comparisons bit by bit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import autopar
from tests.runtime.zoo import ZOO

__all__ = ["Ranks", "all_same", "differences", "local_mean", "make_pair", "same", "seeded", "twin_of"]

Ranks = Callable[..., list[Any]]


def make_pair(name: str, bucket_cap_mb: float | None = None) -> tuple[nn.Module, nn.Module, nn.Module]:
    """A model of the zoo through autopar, its twin, and torch's DDP around the twin.

    With a cap both have the same buckets from the first step on. (DDP starts with one bucket for
    everything and makes the real ones after the first step, unless it looks for unused parameters.)
    """
    if bucket_cap_mb is None:
        mine, twin = twin_of(ZOO[name].build)
        return mine, twin, DistributedDataParallel(twin, **ZOO[name].ddp)
    mine, twin = twin_of(ZOO[name].build, bucket_cap_mb=bucket_cap_mb)
    return mine, twin, DistributedDataParallel(twin, bucket_cap_mb=bucket_cap_mb, find_unused_parameters=True)


def twin_of(build: Callable[[], nn.Module], **options: Any) -> tuple[nn.Module, nn.Module]:
    """A model through autopar, and an equal plain one."""
    torch.manual_seed(0)
    mine = build()
    twin = copy.deepcopy(mine)
    return autopar.parallelize(mine, "ddp", **options), twin


def seeded(step: int = 0) -> None:
    """Random numbers of this rank and step."""
    torch.manual_seed(1000 * dist.get_rank() + step)


def local_mean(model: nn.Module) -> None:
    """Replaces the local gradients of a plain model by their mean over the ranks; None counts as zero."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            mean = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.detach().clone()
            mean.mul_(1.0 / dist.get_world_size())
            dist.all_reduce(mean)
            parameter.grad = mean


def differences(mine: nn.Module, twin: nn.Module, what: Callable[[torch.Tensor], Any] = lambda p: p.grad) -> list[str]:
    """Names of the parameters whose gradients (or whatever ``what`` takes) have different bits."""
    pairs = zip(mine.named_parameters(), twin.parameters(), strict=True)
    return [name for (name, p), q in pairs if not same(what(p), what(q))]


def same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    """Whether two tensors are equal in every bit, dtype and layout, or both None."""
    if one is None or other is None:
        return one is other
    if one.layout != other.layout or one.dtype != other.dtype:
        return False
    return torch.equal(one.to_dense(), other.to_dense()) if one.is_sparse else torch.equal(one, other)


def all_same(ones: Iterable[torch.Tensor], others: Iterable[torch.Tensor]) -> bool:
    """Whether all tensors of two sequences are the same."""
    return all(same(one, other) for one, other in zip(ones, others, strict=True))
