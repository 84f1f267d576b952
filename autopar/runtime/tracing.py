"""Measures steps for ``--trace`` of ``autopar run`` and ``bench``: an engine that looks at the clock all the time.

It takes the place of the ordinary engine only where ``AUTOPAR_TRACE`` names a folder, so that a run
without it pays nothing. Each rank writes what it measured, as JSON, when its engine is closed or the
process ends; ``autopar.view.measured`` reads it. Times are the host's: on CUDA they say when work was queued.
"""

from __future__ import annotations

import atexit
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from autopar import compat
from autopar.partitioner.plan import Plan
from autopar.runtime.bucket_kinds import AnyBucket
from autopar.runtime.collectives import Collectives, Work
from autopar.runtime.comm_hook import CommHook
from autopar.runtime.engine import BucketEngine
from autopar.runtime.group import Group

if TYPE_CHECKING:
    from autopar.compilation import Compilation

__all__ = ["TRACE", "TracingEngine", "make_engine", "write_graphs_with"]

TRACE = "AUTOPAR_TRACE"
_STEPS = 20  # the last ones are kept

GraphWriter = Callable[["Compilation", int, Path], None]


class _Recorder:
    """What was measured of one model, which it outlives.

    Args:
        file: where the measurements go.
        about: rank, world size and model, for the file.
    """

    def __init__(self, file: Path, about: Mapping[str, Any]) -> None:
        self._file, self._about = file, about
        self._origin, self._started = time.time(), time.perf_counter()
        self.steps: deque[dict[str, Any]] = deque(maxlen=_STEPS)

    def now(self) -> float:
        """Seconds since this was made."""
        return time.perf_counter() - self._started

    def write(self) -> None:
        """Writes the file; a process may do so several times."""
        if not self.steps:
            return
        content = {
            "format": "autopar-measured",
            "version": 1,
            **self._about,
            "origin": self._origin,
            "steps": [{**step, "buckets": _listed(step)} for step in self.steps],
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(content), encoding="utf-8")


def _listed(step: Mapping[str, Any]) -> list[dict[str, Any]]:
    waited = step["wait"][1]
    return [{"index": index, **marks, "done": marks.get("done", waited)} for index, marks in step["buckets"].items()]


_recorders: list[_Recorder] = []
_graph_writers: list[GraphWriter] = []


def write_graphs_with(writer: GraphWriter) -> None:
    """On rank 0 ``writer`` gets the compilation of each measured model, the world size, and the folder."""
    _graph_writers[:] = [writer]


def make_engine(
    plan: Plan,
    model: nn.Module,
    collectives: Collectives,
    comm_hook: CommHook | None,
    group: Group,
    compilation: Compilation | None,
) -> BucketEngine:
    """An engine for a model: one that measures where the environment asks for it."""
    parameters = dict(model.named_parameters())
    folder = os.environ.get(TRACE)
    if not folder:
        return BucketEngine(plan, parameters, collectives, comm_hook)
    place = Path(folder) if not _recorders else Path(folder) / f"model-{len(_recorders) + 1}"
    about = {"rank": group.rank, "world_size": group.world_size, "model": compat.original_class(model).__name__}
    _recorders.append(_Recorder(place / f"rank-{group.rank}.json", about))
    if compilation is not None and group.rank == 0:
        for write in _graph_writers:
            write(compilation, group.world_size, place)
    return TracingEngine(plan, parameters, collectives, comm_hook, _recorders[-1])


class TracingEngine(BucketEngine):
    """A bucket engine that takes down when each part of a step began and ended.

    Args:
        plan, parameters, collectives, comm_hook: see ``BucketEngine``.
        recorder: gets the steps.
    """

    def __init__(
        self,
        plan: Plan,
        parameters: Mapping[str, nn.Parameter],
        collectives: Collectives,
        comm_hook: CommHook | None,
        recorder: _Recorder,
    ) -> None:
        super().__init__(plan, parameters, collectives, comm_hook)
        self._recorder, self._now = recorder, recorder.now
        self._step: dict[str, Any] = {}
        self._marks: dict[int, dict[str, Any]] = {}
        self._on_the_way: list[_TimedWork] = []

    def begin_forward(self, *, carried: bool = False) -> None:
        """Starts the clock of a step."""
        super().begin_forward(carried=carried)
        self._step, self._marks = {"number": self.steps, "forward": [self._now()]}, {}
        self._on_the_way = []

    def watch(self, outputs: Iterable[Any]) -> None:
        """The forward has ended."""
        self._step["forward"][1:] = [self._now()]
        super().watch(outputs)

    def reduce(self, bucket: AnyBucket, gradients: Sequence[torch.Tensor | None]) -> Sequence[torch.Tensor | None]:
        """The gradients of a bucket are complete."""
        self._mark(bucket, "ready")
        return super().reduce(bucket, gradients)

    def close(self) -> None:
        """Writes down what was measured."""
        super().close()
        self._recorder.write()

    def _activate(self) -> None:
        self._step["backward"] = [self._now()]
        super()._activate()

    def _load_from_grad(self, bucket: AnyBucket) -> None:
        self._mark(bucket, "ready")
        super()._load_from_grad(bucket)

    def _send(self, bucket: AnyBucket) -> list[Work]:
        marks = self._mark(bucket, "sent")
        marks["bytes"] = sum(message.numel() * message.element_size() for message in bucket.messages)
        works = [_TimedWork(work, marks, self._now) for work in super()._send(bucket)]
        self._on_the_way += works
        return list(works)

    def _wait(self) -> None:
        started = self._now()
        super()._wait()
        self._step["wait"] = [started, self._now()]

    def _finish(self) -> None:
        self._step.setdefault("backward", [self._now()])[1:] = [self._now()]
        super()._finish()
        # Not a copy: a backend may say only now, from its own thread, that a bucket has arrived.
        self._recorder.steps.append({**self._step, "end": self._now(), "buckets": self._marks})

    def _mark(self, bucket: AnyBucket, what: str) -> dict[str, Any]:
        self._on_the_way = [work for work in self._on_the_way if not work.over()]
        marks = self._marks.setdefault(bucket.spec.index, {"parameters": len(bucket.parameters)})
        marks.setdefault(what, self._now())
        return marks


class _TimedWork:
    """A collective that notes when it was over.

    That is when its backend calls back, or when this rank first sees that it is over: by looking, at
    the next bucket, or by waiting.
    """

    __slots__ = ("_marks", "_now", "_over", "_work")

    def __init__(self, work: Work, marks: dict[str, Any], now: Callable[[], float]) -> None:
        self._work, self._marks, self._now, self._over = work, marks, now, False
        if hasattr(work, "when_done"):
            work.when_done(self._end)

    def wait(self) -> None:
        self._work.wait()
        if not hasattr(self._work, "when_done"):
            self._end()

    def over(self) -> bool:
        """Looks."""
        if not self._over and getattr(self._work, "done", False):
            self._end()
        return self._over

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._marks["done"] = self._now()  # of several messages the last one counts


@atexit.register
def _write_all() -> None:
    for recorder in _recorders:
        recorder.write()
