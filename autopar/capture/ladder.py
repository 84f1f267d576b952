"""Chooses the finest form of a model that is exact, and says why it went no further."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Literal, get_args

from torch import nn

from autopar import compat
from autopar.capture.call import Call
from autopar.capture.effects import NotRunError, without_effects
from autopar.capture.falls import Fall, not_done, said, whole
from autopar.capture.gate import SEEDS, Step, compare, eager_step, one_step, program_step
from autopar.capture.opaque import wrap_opaque
from autopar.capture.source import one_line
from autopar.capture.state import Delta, ModelState
from autopar.capture.symbolic import Recording
from autopar.collector import without_collector
from autopar.errors import ModelError, UnknownNameError
from autopar.program import FrontEnd, Program, Remark
from autopar.progress import entering

__all__ = ["CHOICES", "capture", "check_choice", "recorded"]

CHOICES = ("auto", *get_args(FrontEnd))
_EXPORTS: tuple[Literal["export", "dynamo"], ...] = ("export", "dynamo")
# Of what keeps a whole model from being recorded, torch.export takes writes to buffers; a branch on a value, effects,
# checkpoints and hooks it refuses or drops, after up to a minute.
_HOPEFUL = ("its forward writes to", "the gate refused", "recording it failed")
_PATIENCE = 20.0  # seconds that torch.export may have taken for dynamo to be tried as well


def capture(
    model: nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    gate: bool = True,
    front_end: str = "auto",
) -> Program:
    """Captures one call of a model as a Program.

    Runs one step of the model and records it, and compares a step of the recorded graph with it.
    Where the model as a whole cannot be recorded, or the steps differ, torch.export is tried, then
    torch.export by way of dynamo, and then the whole model is one opaque call. The model, its
    buffers, gradients, the inputs and all random streams are left as they were.

    Args:
        model: any module that runs eagerly on the sample call.
        args, kwargs: the sample call; tensors stay, everything else is pinned.
        gate: whether to run and compare one step (two forwards and two backwards).
        front_end: ``"auto"``, or the only one to use: ``"symbolic"`` (the recording), ``"export"``,
            ``"dynamo"`` or ``"opaque"``.

    Raises:
        ModelError: the model has parameters that are not materialised (lazy modules), or the
            front end that was asked for cannot capture it exactly.
        UnknownNameError: there is no such front end.
        Exception: whatever the model itself raises on this call, unchanged.
    """
    check_choice(front_end)
    _refuse_lazy(model)
    call = Call.of(args, kwargs or {})
    if front_end == "opaque":
        return wrap_opaque(model, call, "it was asked for")
    if call.foreign:  # and not run either: a cache, say, would be written to
        kinds = ", ".join(sorted({type(value).__name__ for value in call.foreign}))
        fall = Fall("symbolic", f"it takes a {kinds} as an argument, which a graph cannot be pinned to")
        return whole(model, call, [fall], front_end)
    with without_effects() as effects, without_collector():
        climb = _Climb(model, call, gate=gate)
        try:
            program = climb.run(front_end)
            if isinstance(program, Delta):  # what the first forward of all sets up, later ones find
                climb = _Climb(model, call, gate=gate, settled=program)
                program = climb.run_settled(front_end)
        except NotRunError as error:
            climb.falls = [Fall("symbolic", f"{error}, which cannot be undone, so its forward was not run to the end")]
            program = None
    program = program or whole(model, call, climb.falls, front_end)
    program.arrivals = climb.arrivals
    program.remarks += not_done(program, effects.deeds)
    return program


def recorded(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Program | None:
    """What one more recording shows of a call, without a gate; None where the model cannot be recorded."""
    try:
        return capture(model, args, kwargs, gate=False, front_end="symbolic")
    except ModelError:
        return None


def check_choice(front_end: str) -> None:
    """Refuses what is no front end.

    Raises:
        UnknownNameError: it is none.
    """
    if front_end not in CHOICES:
        raise UnknownNameError("capture front end", front_end, CHOICES)


class _Climb:
    """One way down the ladder: the first front end whose program is exact.

    Args:
        model: the user's model.
        call: the sample call.
        gate: whether a program is compared with eager before it is taken.
        settled: what the model's first forward sets up, if that is done now.

    Attributes:
        falls: the front ends that did not do, in order.
        arrivals: parameters in the order in which the eager step completed their gradients.
    """

    def __init__(self, model: nn.Module, call: Call, *, gate: bool, settled: Delta | None = None) -> None:
        self.model, self.call, self.gate, self.settled = model, call, gate, settled
        self.state = ModelState(model)
        self.falls: list[Fall] = []
        self.arrivals: tuple[str, ...] = ()

    def run(self, front_end: str) -> Program | Delta | None:
        """A program, or None; a change of the model where a run after that change may give more."""
        if front_end in ("auto", "symbolic"):
            recording, eager = self._record()
            self.arrivals = eager.arrivals
            program = recording.program(eager.changed)
            if recording.unsettled and self.settled is None and eager.delta:
                return eager.delta
            if compat.has_global_module_hooks():
                self.falls.append(Fall("symbolic", "hooks are registered on all modules"))
            elif program is None:
                assert recording.refusal is not None
                self.falls.append(Fall("symbolic", recording.refusal.reason, recording.refusal.source))
            elif self._passes(program, eager):
                return program
            if front_end == "symbolic":
                return None
            if not self.falls[-1].reason.startswith(_HOPEFUL):
                self.falls += [
                    Fall(other, "it was not tried, since it takes no such model either") for other in _EXPORTS
                ]
                return None
        else:
            eager = eager_step(self.model, self.call, self.state, backward=self.gate)
            self.arrivals = eager.arrivals
            if self.settled is None and eager.delta:
                return eager.delta
        return self._export(eager, _EXPORTS if front_end == "auto" else (front_end,))  # type: ignore[arg-type]

    def run_settled(self, front_end: str) -> Program | None:
        """The same, after the change that the first forward makes; the model is left as it was."""
        assert self.settled is not None
        before = self.state
        self.settled.apply()
        self.state = ModelState(self.model)
        try:
            program = self.run(front_end)
        finally:
            before.restore()
        assert not isinstance(program, Delta)
        return program

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
        for front_end in front_ends:
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
            if self._passes(program, eager):
                return program
        return None

    def _passes(self, program: Program, eager: Step) -> bool:
        """Whether the program may be used; then it says so itself, and what it was preferred to."""
        if self.settled is not None and (stays := self.settled.without(eager.delta)):
            program.settle = stays.apply
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
                    kind="passed",
                    stage="capture",
                    message=f"{program.name} was captured by the {program.front_end} front end: one step equals eager "
                    "in outputs, gradients, buffers and random numbers.",
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


def _refuse_lazy(model: nn.Module) -> None:
    kinds = (nn.parameter.UninitializedParameter, nn.parameter.UninitializedBuffer)
    lazy = [
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        for name, tensor in chain(module._parameters.items(), module._buffers.items())
        if isinstance(tensor, kinds)
    ]
    if lazy:
        raise ModelError(
            f"The model has lazy parameters without a shape: {', '.join(lazy[:3])}.",
            why="A plan needs every size.",
            mend="Run the model once on a sample input first, or give the sizes in the constructor.",
        )
