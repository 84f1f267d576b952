"""Timing inside one rank: blocks of steps, variant by variant, in the same random order on every rank."""

from __future__ import annotations

import copy
import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from benchmarks.variants import Variant
from benchmarks.workloads import Workload

__all__ = ["OPTIMIZERS", "Settings", "measure"]

OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer | None]] = {
    "none": lambda model: None,
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=1e-3),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to measure.

    Attributes:
        rounds: how often every variant has its turn.
        steps: timed steps in a turn; one more, untimed, warms the caches for it.
        warmup: steps before the first round (DDP rebuilds its buckets in the first two).
        optimizer: a key of ``OPTIMIZERS``.
        world_size: ranks, each with one thread.
        seed: of weights, batches and the order of turns.
    """

    rounds: int = 20
    steps: int = 5
    warmup: int = 3
    optimizer: str = "none"
    world_size: int = 2
    seed: int = 0


def measure(workload: Workload, variants: Sequence[Variant], settings: Settings) -> Iterator[dict[str, list[float]]]:
    """Yields, round by round, the seconds of each variant's steps on this rank.

    All variants live side by side, each on its own copy of one model, in the default process group.
    """
    steppers = {
        variant.name: _stepper(model, workload, variant, settings)
        for variant, model in zip(variants, _copies(workload, len(variants), settings.seed), strict=True)
    }
    for step in steppers.values():
        for _ in range(settings.warmup):
            step()
    # What the other variants allocated must not be scanned by collections during this one's steps.
    gc.collect()
    gc.freeze()
    order = random.Random(settings.seed)
    for _ in range(settings.rounds):
        names = order.sample(list(steppers), len(steppers))
        yield {name: _block(steppers[name], settings.steps) for name in names}
    gc.unfreeze()


def _copies(workload: Workload, count: int, seed: int) -> list[nn.Module]:
    torch.manual_seed(seed)
    model = workload.build()
    return [copy.deepcopy(model) for _ in range(count)]


def _stepper(model: nn.Module, workload: Workload, variant: Variant, settings: Settings) -> Callable[[], None]:
    rank = dist.get_rank() if dist.is_initialized() else 0
    inputs, target = workload.batch(torch.Generator().manual_seed(settings.seed + rank))
    wrapped = variant.wrap(model, inputs)
    optimizer = OPTIMIZERS[settings.optimizer](wrapped)

    def step() -> None:
        workload.loss(wrapped(inputs), target).backward()
        if optimizer is not None:
            optimizer.step()
        wrapped.zero_grad(set_to_none=True)

    return step


def _block(step: Callable[[], None], count: int) -> list[float]:
    if dist.is_initialized():
        dist.barrier()
    step()
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return seconds
