"""One way down the ladder of front ends: the first program that is exact, with its islands."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from autopar import compat
from autopar.capture.call import Call
from autopar.capture.falls import Fall, said, whole
from autopar.capture.gate import SEEDS, Step, compare, eager_forward, eager_step, one_step, program_step
from autopar.capture.held import Delta
from autopar.capture.island_remarks import given_up, opaque_paths, told
from autopar.capture.island_search import Budget, Search
from autopar.capture.source import one_line
from autopar.capture.state import ModelState
from autopar.capture.symbolic import Recording
from autopar.program import Program, Remark
from autopar.progress import entering

__all__ = ["Climb"]

_EXPORTS: tuple[Literal["export", "dynamo"], ...] = ("export", "dynamo")
# Of what keeps a whole model from being recorded, torch.export takes writes to buffers; a branch on a value, effects,
# checkpoints and hooks it refuses or drops, after up to a minute.
_HOPEFUL = ("its forward writes to", "the gate refused", "recording it failed")
_SEARCHED = (*SEEDS, 20_232, 20_233)  # seeds of the runs that look for islands
_PATIENCE = 20.0  # seconds that torch.export may have taken for dynamo to be tried as well


class Climb:
    """One way down the ladder: the first front end whose program is exact.

    Args:
        model: the user's model.
        call: the sample call.
        gate: whether a program is compared with eager before it is taken.
        budget: the time that looking for islands may take.
        islands: whether to look for them.

    Attributes:
        settled: what the model's first forward sets up, if that is done now.
        falls: the front ends that did not do, in order.
        arrivals: parameters in the order in which the eager step completed their gradients.
    """

    def __init__(self, model: nn.Module, call: Call, *, gate: bool, budget: Budget, islands: bool = True) -> None:
        self.model, self.call, self.gate, self.budget, self.islands = model, call, gate, budget, islands
        self.settled: Delta | None = None
        self.state = ModelState(model)
        self.falls: list[Fall] = []
        self.arrivals: tuple[str, ...] = ()

    def run(self, front_end: str) -> Program | Delta:
        """A program; or a change of the model where a run after that change may give more."""
        program, eager = self._finest(front_end)
        if isinstance(program, Delta):
            return program
        program = program or whole(self.model, self.call, self.falls, front_end)
        if self.settled is not None and (stays := self.settled.without(eager.delta)):
            program.settle = stays.apply
        if not self.islands or not (paths := opaque_paths(program)):
            return program
        if self.settled is None and eager.delta:
            return eager.delta
        return self._with_islands(program, paths, eager)

    def run_settled(self, front_end: str, change: Delta) -> Program:
        """The same, after the change that the first forward makes; the model is left as it was."""
        before, self.settled, self.falls = self.state, change, []
        change.apply()
        self.state = ModelState(self.model)
        try:
            if made := sorted(self.state.trainable.keys() - before.trainable.keys()):
                fall = Fall("symbolic", f"its first forward makes {made[0]!r}; it is captured again when that is there")
                return whole(self.model, self.call, [fall], front_end)
            program = self.run(front_end)
        finally:
            before.restore()
        assert not isinstance(program, Delta)
        return program

    def island(self, module: nn.Module, call: Call) -> Program | Fall:
        """A submodule as a program, captured from one of its calls."""
        climb = Climb(module, call, gate=self.gate, budget=self.budget)
        program, eager = climb._finest("symbolic")
        if isinstance(program, Delta):
            return Fall("symbolic", "its first forward sets something up")
        if program is None:
            return climb.falls[0]
        paths = opaque_paths(program)
        return climb._with_islands(program, paths, eager) if paths else program

    def _with_islands(self, program: Program, paths: Sequence[str], eager: Step) -> Program:
        """The program with the islands of its opaque calls, if it is exact with them."""
        entering("looking for graphs inside of what stays opaque")
        search, forward = Search(self.model, paths, self.island, self.budget), eager_forward(self.model, self.call)

        def run(inputs: Sequence[torch.Tensor]) -> Any:
            return search.run(lambda: forward(inputs))

        for seed in _SEARCHED:  # a layer that is dropped at random in one run is called in another
            one_step(self.call, self.state, run, seed=seed, backward=False)
            if not search.uncalled():
                break
        found = dataclasses.replace(program, islands=search.islands)
        difference = self._difference(found, eager) if self.gate and search.islands else None
        if difference is not None:
            program.remarks.append(given_up(difference))
            return program
        return dataclasses.replace(found, remarks=told(found, paths, search))

    def _finest(self, front_end: str) -> tuple[Program | Delta | None, Step]:
        if front_end in ("auto", "symbolic"):
            recording, eager = self._record()
            self.arrivals = eager.arrivals
            program = recording.program(eager.changed)
            if recording.unsettled and self.settled is None and eager.delta:
                return eager.delta, eager
            if compat.has_global_module_hooks():
                self.falls.append(Fall("symbolic", "hooks are registered on all modules"))
            elif program is None:
                assert recording.refusal is not None
                self.falls.append(Fall("symbolic", recording.refusal.reason, recording.refusal.source))
            elif self._passes(program, eager, _EXPORTS[0] if front_end == "auto" else None):
                return program, eager
            if front_end == "symbolic":
                return None, eager
            if not self.falls[-1].reason.startswith(_HOPEFUL):
                self.falls += [
                    Fall(other, "it was not tried, since it takes no such model either") for other in _EXPORTS
                ]
                return None, eager
        else:
            eager = eager_step(self.model, self.call, self.state, backward=self.gate)
            self.arrivals = eager.arrivals
            if self.settled is None and eager.delta:
                return eager.delta, eager
        return self._export(eager, _EXPORTS if front_end == "auto" else (front_end,)), eager  # type: ignore[arg-type]

    def _record(self) -> tuple[Recording, Step]:
        entering("recording one step")
        recording = Recording(self.model, self.call, self.state)
        eager = one_step(self.call, self.state, recording.forward, backward=self.gate)
        if recording.drew:
            recording = Recording(self.model, self.call, self.state, follow_random=True)
            eager = one_step(self.call, self.state, recording.forward, backward=self.gate)
        return recording, eager

    def _export(self, eager: Step, front_ends: Sequence[Literal["export", "dynamo"]]) -> Program | None:
        from autopar.capture.exporting import ExportRefusedError, export_program

        started = time.monotonic()
        for front_end, runner_up in zip(front_ends, (*front_ends[1:], None), strict=True):
            seconds = time.monotonic() - started
            if seconds > _PATIENCE:
                self.falls.append(Fall(front_end, f"it was not tried, since torch.export took {seconds:.0f} s"))
                continue
            entering("following it with torch.export" + (" and dynamo" if front_end == "dynamo" else ""))
            try:
                program = export_program(self.model, self.call, self.state, eager, front_end=front_end)
            except ExportRefusedError as error:
                self.falls.append(Fall(front_end, str(error)))
                continue
            if self._passes(program, eager, runner_up):
                return program
        return None

    def _passes(self, program: Program, eager: Step, runner_up: str | None) -> bool:
        """Whether the program may be used; then it says so itself, what did not do, and what would have been next."""
        difference = self._difference(program, eager) if self.gate else None
        if difference is not None:
            self.falls.append(
                Fall(program.front_end, f"the gate refused the {program.front_end} capture, because {difference}")
            )
            return False
        program.remarks += map(said, self.falls)
        if self.gate:
            program.remarks.append(
                Remark(
                    code="AP101",
                    kind="passed",
                    stage="capture",
                    message=f"{program.name} was captured by the {program.front_end} front end: one step equals eager "
                    "in outputs, gradients, buffers and random numbers."
                    + (f" The runner-up, {runner_up}, was not needed." if runner_up else ""),
                )
            )
        return True

    def _difference(self, program: Program, eager: Step) -> str | None:
        """What tells a program from the eager model, one step of which is known."""
        call, state = self.call, self.state
        entering("comparing with eager")
        try:
            step = program_step(program, call, state)
            program.seconds = step.seconds
            # The first eager step may be unlike all later ones: libraries import on their first call.
            difference = compare(eager, step) and compare(eager_step(program.model, call, state), step)
            if difference is None:
                other: dict[str, Any] = {"seed": SEEDS[1], "backward": False}
                again = eager_step(program.model, call, state, **other)
                difference = compare(again, program_step(program, call, state, **other))
        except Exception as error:  # the program ran where eager did: whatever failed, the graph is wrong
            return f"the captured graph raised {one_line(error)}"
        return difference
