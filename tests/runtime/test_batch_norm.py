"""Synchronised batch norms on the CPU: several ranks equal one process with the whole batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import autopar
from autopar.errors import OptionError
from autopar.nn import DistributedDataParallel
from tests.opaque import kept_whole
from tests.ranks import run_ranks
from tests.runtime.pairs import differences

BOUND = 1e-10  # relative, in float64: sums in another order, of numbers far from zero
Sizes = list[list[int]]  # the batch of each rank, for each step


class Chain(nn.Module):
    """Batch norms beside each other, in a row, and inside of an opaque piece; enough layers for several buckets."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3)
        self.left, self.right = norm(4), norm(4)
        self.inner = kept_whole(nn.Sequential(nn.Conv2d(4, 4, 1), norm(4)))
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Three numbers for each image."""
        x = self.stem(x)
        x = self.left(x).relu() + self.right(x.tanh())
        return self.head(self.inner(x).relu().mean((2, 3)))


def images(step: int, count: int) -> torch.Tensor:
    """The whole batch of a step, far from zero: a sum of squares would lose digits."""
    generator = torch.Generator().manual_seed(step)
    return torch.randn(count, 2, 5, 5, generator=generator, dtype=torch.float64) * 3 + 1000


def train(model: nn.Module, steps: Sizes, rank: int | None) -> None:
    """Steps of SGD on this rank's images, or on all; the loss of a rank is its part of the mean over all images."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step, sizes in enumerate(steps):
        batch = images(step, sum(sizes))
        if rank is not None:
            batch = batch.split(sizes)[rank]
        optimizer.zero_grad()
        share = 1 if rank is None else len(sizes)
        (model(batch).square().sum() * share / sum(sizes)).backward()
        optimizer.step()


def apart(one: nn.Module, other: nn.Module, bound: float = BOUND) -> dict[str, float]:
    """The relative difference of each parameter and buffer that differs by more than the bound."""
    found = {}
    for (name, mine), theirs in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        difference = float((mine - theirs).abs().max() / theirs.abs().max().clamp(min=1e-3))
        if difference > bound:
            found[name] = difference
    return found


KINDS: dict[str, Callable[[int], nn.Module]] = {
    "plain": nn.BatchNorm2d,
    "sync": nn.SyncBatchNorm,
    "no affine": lambda n: nn.BatchNorm2d(n, affine=False),
    "no statistics": lambda n: nn.BatchNorm2d(n, track_running_stats=False),
    "cumulative": lambda n: nn.BatchNorm2d(n, momentum=None),
}


def on_ranks(steps: Sizes, kinds: list[str]) -> dict[str, Any]:
    """What differs from one process, for each kind of norm."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    found: dict[str, Any] = {}
    for kind in kinds:
        torch.manual_seed(0)
        whole = Chain(KINDS[kind]).double()
        alone = Chain(KINDS["plain" if kind == "sync" else kind]).double()
        alone.load_state_dict(whole.state_dict())
        options = {} if kind == "sync" else {"sync_batch_norm": True}
        train(alone, steps, None)
        mine = autopar.parallelize(copy.deepcopy(whole), "ddp", bucket_cap_mb=0, **options)
        train(mine, steps, rank)
        found[kind] = apart(mine, alone)
        found[f"{kind} evaluates"] = evaluates(mine, alone) if rank == 0 else True
    return found


def evaluates(mine: nn.Module, alone: nn.Module) -> bool:
    """On this rank alone: with gradients and without."""
    mine.eval()
    alone.eval()
    batch = images(9, 4)
    with torch.no_grad():
        return torch.allclose(mine(batch), alone(batch), rtol=1e-9)


class Activated(nn.BatchNorm2d):
    """A subclass that does more, as libraries have them."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalised, and never negative."""
        return super().forward(input).relu()


class ByItself(nn.BatchNorm2d):
    """A subclass that repeats what torch does."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As torch's."""
        return F.batch_norm(input, None, None, self.weight, self.bias, True)


class Tracking(nn.Module):
    """Its statistics come from a forward without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.SyncBatchNorm(2), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Two numbers for each image."""
        with torch.no_grad():
            x = self.norm(x)
        return self.head(x.mean((2, 3)))


def placed_oddly() -> dict[str, Any]:
    """A norm as the whole model, subclasses, one in a part without gradients; one value a channel on each rank."""
    dist.init_process_group("gloo")
    rank, found = dist.get_rank(), {}
    subclass = nn.Sequential(nn.Conv2d(2, 4, 3), Activated(4))
    models = {"root": nn.SyncBatchNorm(2), "subclass": subclass, "part": Tracking()}
    for name, model in models.items():
        alone = copy.deepcopy(model).double()
        for norm in [alone, *alone.modules()]:
            if type(norm) is nn.SyncBatchNorm:
                norm.__class__ = nn.BatchNorm2d
        mine = autopar.parallelize(model.double(), "ddp", sync_batch_norm=True)
        train(alone, [[5, 3]] * 3, None)
        train(mine, [[5, 3]] * 3, rank)
        found[name] = apart(mine, alone, bound=1e-8)  # sums of numbers near 1000; unshared they differ by a tenth
    one = autopar.parallelize(nn.Sequential(nn.Linear(2, 2), nn.SyncBatchNorm(2)), "ddp")
    one(torch.full((1, 2), float(rank))).sum().backward()
    found["one row"] = bool(one[0].weight.grad.isfinite().all()) and one[1].running_mean.tolist()
    with pytest.raises(OptionError, match=r"1 \(ByItself\) cannot share its statistics"):
        autopar.parallelize(nn.Sequential(nn.Conv2d(2, 4, 3), ByItself(4)), "ddp", sync_batch_norm=True)
    return found


def others() -> dict[str, Any]:
    """The drop-in, a checkpoint around norms, a forward without gradients; to compile and to join is refused."""
    dist.init_process_group("gloo")
    rank, sizes = dist.get_rank(), [5, 3]
    steps = [sizes] * 3
    torch.manual_seed(0)
    whole = Chain(nn.SyncBatchNorm).double()
    alone = Chain(nn.BatchNorm2d).double()
    alone.load_state_dict(whole.state_dict())
    train(alone, steps, None)
    wrapped = DistributedDataParallel(copy.deepcopy(whole))
    train(wrapped, steps, rank)
    found: dict[str, Any] = {"drop-in": apart(wrapped.module, alone)}
    with torch.no_grad():
        batch = images(7, 8)
        found["no grad"] = torch.allclose(wrapped(batch.split(sizes)[rank]), alone(batch).split(sizes)[rank], rtol=1e-9)
    models = [autopar.parallelize(Checkpointed(again), "ddp", sync_batch_norm=True) for again in (True, False)]
    for model in models:
        torch.manual_seed(rank)
        model(torch.randn(3, 4)).square().sum().backward()
    found["checkpoint"] = differences(*models)
    one = autopar.parallelize(nn.Sequential(nn.Linear(2, 2), nn.SyncBatchNorm(2)), "ddp", compile=True)
    with pytest.raises(OptionError, match=r"1 \(SyncBatchNorm\) shares its statistics"):
        one(torch.ones(3, 2))
    with pytest.raises(OptionError, match=r"left \(SyncBatchNorm\) shares its statistics"), wrapped.join():
        pass
    return found


class Checkpointed(nn.Module):
    """Norms that backward computes again."""

    def __init__(self, again: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.again, self.first = again, nn.Linear(4, 4)
        self.block = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4), nn.BatchNorm1d(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Four numbers for each row."""
        x = self.first(x)
        return checkpoint(self.block, x, use_reentrant=False) if self.again else self.block(x)


def test_two_ranks_of_unequal_batches_equal_one_process() -> None:
    """Parameters and statistics after three steps; evaluation on one rank alone waits for nobody."""
    for found in run_ranks(on_ranks, 2, [[5, 3], [2, 6], [4, 4]], list(KINDS), timeout=100.0):
        assert found == {key: {} for key in KINDS} | {f"{key} evaluates": True for key in KINDS}


def test_three_ranks_with_one_image_and_with_none() -> None:
    """A rank without a sample takes part with zeros."""
    gloo, steps = {"AUTOPAR_BACKEND": "torch"}, [[4, 1, 2], [4, 1, 0], [1, 0, 1]]
    for found in run_ranks(on_ranks, 3, steps, ["sync", "plain"], timeout=100.0, environment=gloo):
        assert (found["sync"], found["plain"]) == ({}, {})


def test_where_else_norms_run() -> None:
    """Eagerly, without gradients, and again in backward; compiled they are refused."""
    for found in run_ranks(others, 2, timeout=100.0):
        assert found == {"drop-in": {}, "no grad": True, "checkpoint": []}


def test_norms_in_odd_places_share_too() -> None:
    """Nothing of a norm that shares becomes a node of plain operations, which would not."""
    first, second = run_ranks(placed_oddly, 2, timeout=100.0)
    row = first.pop("one row")
    assert row
    assert row == second.pop("one row")
    assert first == second == {"root": {}, "subclass": {}, "part": {}}
