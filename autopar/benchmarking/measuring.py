"""Timing inside one rank: blocks of steps, column by column, in the same random order on every rank."""

from __future__ import annotations

import copy
import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from autopar import compat
from autopar.benchmarking.columns import Column
from autopar.verification.sources import Loaded

__all__ = ["OPTIMIZERS", "Settings", "Steppers", "stepper"]

OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer | None]] = {
    "none": lambda model: None,
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=1e-3),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to measure.

    Attributes:
        rounds: how often every column has its turn.
        steps: timed steps in a turn; one more, untimed, warms the caches for it.
        warmup: steps before the first round (DDP rebuilds its buckets in the first two).
        optimizer: a key of ``OPTIMIZERS``.
        nproc: ranks, each with one thread.
        seed: of weights, batches and the order of turns.
    """

    rounds: int = 20
    steps: int = 5
    warmup: int = 3
    optimizer: str = "none"
    nproc: int = 2
    seed: int = 0


class Steppers:
    """All columns side by side, each on its own copy of one model, in the default process group.

    Args:
        loaded: the model with a sample call and a loss.
        columns: how to train it.
        settings: how to measure.

    Attributes:
        graphs: by compiled column, how many graphs the compiler made of a step.
        skipped: columns that cannot train this model, with the reason: the same on all ranks.
    """

    def __init__(self, loaded: Loaded, columns: Sequence[Column], settings: Settings) -> None:
        self.settings = settings
        self.graphs: dict[str, int] = {}
        self.skipped: dict[str, str] = {}
        self._steps: dict[str, tuple[Column, Callable[[], None]]] = {}
        for column in columns:
            failure = ""
            if not column.alone or _rank() == 0:
                before = compat.graphs_compiled()
                try:
                    step = stepper(copy.deepcopy(loaded.model), loaded, column, settings)
                    for _ in range(settings.warmup):
                        step()
                    self._steps[column.name] = column, step
                    if column.compiled:
                        self.graphs[column.name] = compat.graphs_compiled() - before
                except Exception as error:
                    failure = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            else:
                self._steps[column.name] = column, _nothing
            if failure := next(filter(None, _from_all(failure)), ""):
                self.skipped[column.name] = failure
                self._steps.pop(column.name, None)
                self.graphs.pop(column.name, None)

    def rounds(self) -> Iterator[dict[str, list[float]]]:
        """Yields, round by round, the seconds of each column's steps on this rank."""
        # What the other columns allocated must not be scanned by collections during this one's steps.
        gc.collect()
        gc.freeze()
        order = random.Random(self.settings.seed)
        for _ in range(self.settings.rounds):
            names = order.sample(list(self._steps), len(self._steps))
            yield {name: self._block(*self._steps[name]) for name in names}
        gc.unfreeze()

    def _block(self, column: Column, step: Callable[[], None]) -> list[float]:
        _barrier()
        step()
        seconds = []
        for _ in range(self.settings.steps if not column.alone or _rank() == 0 else 0):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        if column.alone:
            _barrier()
        return seconds


def stepper(model: nn.Module, loaded: Loaded, column: Column, settings: Settings) -> Callable[[], None]:
    """A function that makes one training step."""
    wrapped = column.wrap(model, loaded.call)
    optimizer = OPTIMIZERS[settings.optimizer](wrapped)
    args, kwargs = loaded.call

    def step() -> None:
        with loaded.active():
            loaded.loss_of(wrapped(*args, **kwargs)).backward()
        if optimizer is not None:
            optimizer.step()
        wrapped.zero_grad(set_to_none=True)

    if not column.alone:
        return step

    def alone() -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(settings.nproc)
        try:
            step()
        finally:
            torch.set_num_threads(threads)

    return alone


def _nothing() -> None:
    """The step of a rank that waits while another has the machine."""


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def _from_all(value: str) -> list[Any]:
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
