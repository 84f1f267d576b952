"""Ranks on this host: processes that measure together over loopback, and what they measured."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import set_forkserver_preload
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessException, start_processes

from autopar.api import unparallelize
from autopar.benchmarking.columns import Column, select_columns
from autopar.benchmarking.measuring import Settings, Steppers, stepper
from autopar.benchmarking.memory import peak_bytes
from autopar.benchmarking.progress import Rounds
from autopar.errors import CheckFailedError
from autopar.runtime.tracing import TRACE, write_graphs_with
from autopar.scripts.parent import end_with_caller
from autopar.scripts.traced import write_graph
from autopar.verification.sources import Source

__all__ = ["Measured", "merge_ranks", "run_ranks", "trace_ranks"]

_MEMORY_STEPS = 3
_TRACED_STEPS = 20


@dataclass(slots=True, kw_only=True)
class Measured:
    """What was measured of one model.

    Attributes:
        steps: seconds of every step: by column, one list for each round.
        peak: by column, peak resident bytes of a rank while it trains; None where the system does not say.
        graphs: by compiled column, how many graphs the compiler made of a step.
        skipped: columns that cannot train this model, with the reason.
    """

    steps: dict[str, list[list[float]]] = field(default_factory=dict)
    peak: dict[str, int | None] = field(default_factory=dict)
    graphs: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def run_ranks(
    sources: Mapping[str, Source], columns: Sequence[Column], settings: Settings, *, memory: bool = True
) -> dict[str, Measured]:
    """Starts the ranks, waits for them, returns what they measured by model; no process or file stays behind.

    Args:
        sources: of the models, by name; picklable.
        columns: how to train them.
        settings: how to measure.
        memory: measure peak memory as well: in processes of their own, one column at a time.

    Raises:
        CheckFailedError: a rank failed.
    """
    names = [column.name for column in columns]
    found = _spawn(_time_rank, dict(sources), names, settings)
    measured = {name: Measured(**values) for name, values in found.items()}
    if memory:
        for column in columns:
            for name, source in sources.items():
                if not column.alone and column.name not in measured[name].skipped:
                    peak = _spawn(_memory_rank, {name: source}, [column.name], settings)
                    measured[name].peak[column.name] = peak[name]
    return measured


def trace_ranks(source: Source, settings: Settings, folder: Path) -> None:
    """Measures when each part of autopar's steps begins and ends, in processes of their own: looking costs time.

    Args:
        source: of the model; picklable.
        settings: how many ranks, and what they warm up with.
        folder: gets a file of each rank, and the graph that they run, as from ``autopar run --trace``.

    Raises:
        CheckFailedError: a rank failed.
    """
    _spawn(partial(_trace_rank, str(folder.absolute())), {"traced": source}, ["autopar"], settings)


def merge_ranks(ranks: Sequence[Mapping[str, list[float]]]) -> dict[str, list[float]]:
    """One round of all ranks as one: the mean of every step over the ranks that made it.

    Ranks that communicate take equal times anyway; for the column that does not, the slower one
    of two would look like a cost of its own.

    >>> merge_ranks([{"plain": [1.0, 3.0], "alone": [7.0]}, {"plain": [2.0, 3.0], "alone": []}])
    {'plain': [1.5, 3.0], 'alone': [7.0]}
    """
    merged = {}
    for name in ranks[0]:
        timed = [rank[name] for rank in ranks if rank[name]]
        merged[name] = [sum(step) / len(timed) for step in zip(*timed, strict=True)]
    return merged


def _spawn(work: Any, sources: dict[str, Source], columns: list[str], settings: Settings) -> dict[str, Any]:
    set_forkserver_preload(["autopar.verification.preload"])  # torch is imported once, not in every process
    with tempfile.TemporaryDirectory() as folder:
        arguments = (Path(folder), work, sources, columns, settings)
        ranks = start_processes(_rank, arguments, nprocs=settings.nproc, join=False, start_method="forkserver")
        try:
            while not ranks.join():
                pass
        except ProcessException as error:
            raise CheckFailedError(f"A rank failed, so there is nothing to report.{error}") from None
        finally:
            for process in ranks.processes:
                process.kill()
                process.join()
        found: dict[str, Any] = json.loads(Path(folder, "measured.json").read_text())
    return found


def _rank(
    rank: int, folder: Path, work: Any, sources: dict[str, Source], columns: list[str], settings: Settings
) -> None:
    end_with_caller()
    torch.set_num_threads(1)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=settings.nproc)
    try:
        found = work(sources, select_columns(",".join(columns)), settings)
    finally:
        dist.destroy_process_group()
    if rank == 0:
        (folder / "measured.json").write_text(json.dumps(found))


def _time_rank(sources: dict[str, Source], columns: Sequence[Column], settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with Rounds(settings.rounds * len(sources), silent=dist.get_rank() != 0) as progress:
        for name, source in sources.items():
            progress.title = name
            torch.manual_seed(settings.seed)
            steppers = Steppers(source.load(), columns, settings)
            measured = Measured(graphs=steppers.graphs, skipped=steppers.skipped)
            for local in steppers.rounds():
                ranks: list[dict[str, list[float]]] = [{}] * settings.nproc
                dist.all_gather_object(ranks, local)
                for column, seconds in merge_ranks(ranks).items():
                    measured.steps.setdefault(column, []).append(seconds)
                progress.advance()
            found[name] = asdict(measured)
    return found


def _memory_rank(sources: dict[str, Source], columns: Sequence[Column], settings: Settings) -> dict[str, Any]:
    ((name, source),) = sources.items()  # a process each: what another model allocated is never given back
    torch.manual_seed(settings.seed)
    loaded = source.load()
    step = stepper(loaded.model, loaded, columns[-1], settings)
    return {name: peak_bytes(step, warmup=settings.warmup, steps=_MEMORY_STEPS)}


def _trace_rank(
    folder: str, sources: dict[str, Source], columns: Sequence[Column], settings: Settings
) -> dict[str, Any]:
    os.environ[TRACE] = folder
    write_graphs_with(write_graph)
    torch.manual_seed(settings.seed)
    loaded = sources["traced"].load()
    step = stepper(loaded.model, loaded, columns[-1], settings)
    for _ in range(settings.warmup + _TRACED_STEPS):
        step()
    unparallelize(loaded.model)  # which writes down what was measured
    return {}
