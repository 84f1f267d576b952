"""``verify``: trains a model plainly and in parallel, side by side, and compares after every step."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from autopar.capture.streams import RandomStreams
from autopar.compilation import require_trainable
from autopar.partitioner.plan import Plan
from autopar.strategies.base import Strategy
from autopar.verification.batches import Batches, filled
from autopar.verification.launch import started
from autopar.verification.report import Report
from autopar.verification.settings import Settings
from autopar.verification.sources import ObjectSource, PrintedSource, Source
from autopar.verification.steps import Verification, plainly
from autopar.verification.training import LossOf, as_record

__all__ = ["verify", "verify_source"]


def verify(
    model: nn.Module | Callable[[], nn.Module],
    example_inputs: Any,
    strategy: str | Strategy = "ddp",
    *,
    nproc: int = 2,
    steps: int = 5,
    optimizer: str = "adamw",
    lr: float | None = None,
    loss: LossOf | None = None,
    pipeline: str | None = None,
    capture: str = "auto",
    plan: Plan | None = None,
    **options: Any,
) -> Report:
    """Proves that a model trains the same in parallel, or says where it does not.

    Trains a copy of the untouched model in this process, and the parallel one in processes of its own, from
    the same values and each with its part of the batch, on the CPU and with one thread each, where the same
    arithmetic gives the same bits. The model is left as it is. ``docs/verify.md`` says what is compared
    with what.

    Args:
        model: a module, or a function at the top level of a file that returns one. Either is pickled.
        example_inputs: a sample call with the whole batch: a tensor, a tuple of positional arguments, or a
            dict of keyword arguments.
        strategy: a registered name or a strategy object.
        nproc: ranks, or replicas of ``data_parallel``.
        steps: training steps.
        optimizer: ``"adamw"``, ``"sgd"`` and others of torch's.
        lr: learning rate; None is the optimizer's default.
        loss: takes what the model returns, gives a scalar; by default the model's own loss where it returns
            one, else the mean square of its outputs.
        pipeline: another pipeline of passes.
        capture: the front end, as for ``autopar.parallelize``.
        plan: a plan to follow.
        **options: options of the strategy.

    Raises:
        UsageError: a value is off, or the model cannot be handed to other processes.
        ModelError: the model does not train plainly on these inputs.
        AutoparError: the parallel side raised it.

    Example:
        report = autopar.verify(build_model, torch.randn(32, 10))
        report.require()  # raises where the trainings differ
    """
    from autopar.api import as_call

    settings = Settings(
        strategy=strategy, options=options, pipeline=pipeline, capture=capture, plan=plan, nproc=nproc, steps=steps,
        optimizer=optimizer, lr=lr,
    )  # fmt: skip
    return verify_source(ObjectSource(model=model, call=as_call(example_inputs), loss=loss), settings)


def verify_source(
    source: Source,
    settings: Settings,
    *,
    printed: PrintedSource | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Report:
    """The same for a model that every process builds for itself.

    Args:
        source: of the untouched model.
        settings: of both trainings.
        printed: a file of ``autopar transform``'s to train in place of the compiled program.
        progress: told what is going on.
    """
    with _quietly():
        if printed is not None:
            settings = _following(settings, printed.plan)
        strategy = settings.strategy_object()
        replicated = strategy.name == "data_parallel"
        loaded = source.load()
        require_trainable(loaded.model)
        dim = int(strategy.options().get("dim", 0))
        batches = Batches(loaded.call, parts=settings.nproc, dim=dim, equal=not replicated)
        with loaded.active(), plainly(loaded.name):  # what the model itself cannot do is said before others try
            trial = filled(loaded.call, batches.part(0, 0))
            as_record(copy.deepcopy(loaded.model), trial, loaded.loss_of, seed=0)
        ranks = None if replicated else settings.nproc
        progress(f"Starting {settings.nproc} {'replicas' if replicated else 'ranks'} of {loaded.name}")
        with started(printed or source, settings, ranks=ranks) as processes, loaded.active():
            verification = Verification(loaded, settings, batches, processes, progress)
            return verification.report(strategy.name, "" if printed is None else printed.path)


def _following(settings: Settings, plan: Plan) -> Settings:
    """The settings of a printed file: its plan's strategy and number of replicas."""
    nproc = int(plan.options.get("replicas") or settings.nproc)
    return dataclasses.replace(settings, strategy=plan.strategy, options={}, nproc=nproc)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """One thread, as the ranks have, prints to standard error, and nothing of it left behind in this process."""
    threads, streams = torch.get_num_threads(), RandomStreams()
    torch.set_num_threads(1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        torch.set_num_threads(threads)
        streams.restore()
