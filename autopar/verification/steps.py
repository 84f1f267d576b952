"""The two sides of a verification, step by step."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from autopar.errors import AutoparError, CaptureError
from autopar.partitioner.plan import Plan
from autopar.verification.batches import Batches
from autopar.verification.comparison import Difference, Tally
from autopar.verification.launch import Processes
from autopar.verification.reference import Expected, RanksReference, Reference, ReplicasReference
from autopar.verification.report import Check, Report
from autopar.verification.settings import Settings
from autopar.verification.sources import Loaded
from autopar.verification.training import KINDS, Record, state_of
from autopar.verification.whole import WholeBatch

__all__ = ["Verification", "plainly"]

_SEED = 20_240
_STEPS_APART, _RANKS_APART = 1_000, 1


class Verification:
    """Trains both sides and compares them after every step.

    Args:
        loaded: the untouched model.
        settings: of both trainings.
        batches: what both train on.
        processes: the parallel side.
        progress: told what is going on.
    """

    def __init__(
        self,
        loaded: Loaded,
        settings: Settings,
        batches: Batches,
        processes: Processes,
        progress: Callable[[str], None],
    ) -> None:
        self.loaded, self.settings, self.batches = loaded, settings, batches
        self.processes, self.progress = processes, progress
        model, parts = loaded.model, len(processes)
        values = {name: t.detach() for name, t in (*model.named_parameters(), *model.named_buffers())}
        for rank in range(len(processes)):
            processes.tell(rank, "start", values=values)
            processes.tell(rank, "start", tensors=self._tensors(0, rank))
        free = copy.deepcopy(model)
        self.whole = WholeBatch(free, settings.make_optimizer(free), loaded.loss_of, parts)
        ready = processes.hear()
        self.plan = Plan.from_json(ready[0]["plan"])
        self.reference = self._reference()
        against = "its parts, trained plainly" if parts > 1 else "its parts, one after the other"
        self.tallies = {kind: Tally(kind, against, "equal bits") for kind in KINDS}
        if parts > 2:
            self.tallies["gradients"].rule = f"{parts - 1} eps x sum of terms"
        self.start = [message["record"] for message in ready]

    def report(self, strategy: str, printed: str) -> Report:
        """Trains, and says what came of it."""
        settings, step = self.settings, 0
        difference = self._compare_start()
        drift = (0.0, "")
        while difference is None and step < settings.steps:
            self.progress(f"Step {step + 1} of {settings.steps}")
            difference, drift = self._step(step)
            step += 1
        return Report(
            model=self.loaded.name,
            strategy=strategy,
            optimizer=settings.optimizer,
            parts=settings.nproc,
            steps=step,
            samples=self.batches.size,
            checks=[Check.of(t) for t in (*self.tallies.values(), self.whole.tally) if t.tensors],
            difference=difference,
            notes=list(self._notes(difference, drift)),
            program=printed,
        )

    def _compare_start(self) -> Difference | None:
        expected = state_of(self.loaded.model)
        for rank, record in enumerate(self.start):
            found = self._compare(record, expected, ("parameters", "buffers"), step=-1, rank=rank)
            if found is not None:
                return found
        return None

    def _step(self, step: int) -> tuple[Difference | None, tuple[float, str]]:
        seeds = [_SEED + _STEPS_APART * step + _RANKS_APART * rank for rank in range(len(self.processes))]
        for rank, seed in enumerate(seeds):
            self.processes.tell(rank, "step", tensors=self._tensors(step, rank), seed=seed)
        with plainly(self.loaded.name):
            state = copy.deepcopy(self.reference.model)
            self.whole.train(self.batches, step, seeds[0])
            expected = self.reference.backward(self.batches, step, seeds)
        records = [message["record"] for message in self.processes.hear()]
        with plainly(self.loaded.name):
            self.reference.update(records[0]["gradients"] if expected.slack else None)
        difference = self._first(step, records, expected)
        if difference is None:
            difference = self.whole.compare(state, self.batches, step, seeds[0], records[0]["gradients"])
        elif difference.kind == "outputs":
            difference = self._located(difference, seeds)
        return difference, self.whole.drift(records[0]["parameters"])

    def _first(self, step: int, records: Sequence[Record], expected: Expected) -> Difference | None:
        state = state_of(self.reference.model)
        found = []
        for rank, (record, right) in enumerate(zip(records, expected.records, strict=True)):
            wanted = {**right, "parameters": state["parameters"]}
            if rank and expected.slack:  # sums of n terms may be rounded otherwise, but alike on all ranks
                wanted["gradients"] = {
                    name: own if own is None else records[0]["gradients"][name]
                    for name, own in right["gradients"].items()
                }
            slack = expected.slack if rank == 0 else {}
            found.append(self._compare(record, wanted, KINDS, step=step, rank=rank, slack=slack))
        differences = [one for one in found if one is not None]
        return min(differences, key=lambda one: KINDS.index(one.kind), default=None)

    def _compare(
        self,
        record: Record,
        wanted: Record,
        kinds: Sequence[str],
        *,
        step: int,
        rank: int,
        slack: Mapping[str, torch.Tensor] | None = None,
    ) -> Difference | None:
        first = None
        for kind in kinds:
            for name in self._in_order(kind, {**wanted[kind], **record[kind]}):
                allowed = (slack or {}).get(name) if kind == "gradients" else None
                found = self.tallies[kind].take(
                    name, record[kind].get(name), wanted[kind].get(name), step=step, rank=rank, slack=allowed
                )
                first = first or found
        return first

    def _in_order(self, kind: str, names: Mapping[str, Any]) -> list[str]:
        """Gradients as backward makes them, so that the first that differs is the nearest to the cause."""
        if kind != "gradients":
            return list(names)
        ready = [name for bucket in self.plan.buckets for name in bucket.parameters if name in names]
        return [*ready, *(name for name in names if name not in ready)]

    def _located(self, difference: Difference, seeds: Sequence[int]) -> Difference:
        """The difference with the operation at which it begins."""
        for rank, seed in enumerate(seeds):
            self.processes.tell(rank, "locate", tensors=self._tensors(difference.step, rank), seed=seed)
        operation = self.processes.hear()[difference.rank]["operation"]
        return dataclasses.replace(difference, operation=operation)

    def _tensors(self, step: int, rank: int) -> list[torch.Tensor]:
        batches = self.batches
        return batches.part(step, rank) if len(self.processes) > 1 else batches.whole(step)

    def _reference(self) -> Reference:
        model, settings = self.loaded.model, self.settings
        optimizer = settings.make_optimizer(model)
        if len(self.processes) > 1:
            equal = bool(settings.strategy_object().options().get("broadcast_buffers", True))
            return RanksReference(model, optimizer, self.loaded.loss_of, ranks=len(self.processes), equal_buffers=equal)
        return ReplicasReference(model, optimizer, self.loaded.loss_of, self.plan)

    def _notes(self, difference: Difference | None, drift: tuple[float, str]) -> Iterator[str]:
        if self.batches.dropped:
            yield f"{self.batches.dropped} samples are left out, so that all parts are of one size."
        if self.whole.reason:
            yield f"Not compared with the whole batch: {self.whole.reason}"
        elif difference is None:
            apart, name = drift
            yield (
                f"A training that only ever saw whole batches ends with parameters that are at most {apart:.2g} "
                f"away ({name}): rounding that each step hands on to the next."
                if apart
                else "A training that only ever saw whole batches ends with the same parameters, bit for bit."
            )


@contextlib.contextmanager
def plainly(name: str) -> Iterator[None]:
    """Says of what the user's own code raises within the block that it has nothing to do with parallelism.

    Raises:
        CaptureError: in its place.
    """
    try:
        yield
    except AutoparError:
        raise
    except Exception as error:
        raise CaptureError(
            f"{name} does not train plainly on these inputs: {type(error).__name__}: "
            f"{str(error).strip().partition(chr(10))[0].rstrip('.')}.",
            why="It has to run on the whole batch and on each part of it.",
            mend="Give other inputs with --input, another --loss, or another --optimizer.",
        ) from error
