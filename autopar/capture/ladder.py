"""Chooses the finest form of a model that is exact, and says why it went no further."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from autopar import compat
from autopar.capture.call import Call
from autopar.capture.effects import quiet_output
from autopar.capture.gate import SEEDS, Step, compare, eager_step, one_step, program_step
from autopar.capture.opaque import wrap_opaque
from autopar.capture.state import Delta, ModelState
from autopar.capture.symbolic import Recording
from autopar.errors import ModelError
from autopar.program import Program, Remark

__all__ = ["capture"]


def capture(
    model: nn.Module, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, *, gate: bool = True
) -> Program:
    """Captures one call of a model as a Program.

    Runs one step of the model and records it, compares a step of the recorded graph with it, and
    falls back to the whole model as one opaque call where they differ. The model, its buffers,
    gradients, the inputs and all random streams are left as they were.

    Args:
        model: any module that runs eagerly on the sample call.
        args, kwargs: the sample call; tensors stay, everything else is pinned.
        gate: whether to run and compare one step (two forwards and two backwards).

    Raises:
        ModelError: the model has parameters that are not materialised (lazy modules).
        Exception: whatever the model itself raises on this call, unchanged.
    """
    _refuse_lazy(model)
    call = Call.of(args, kwargs or {})
    if call.foreign:  # and not run either: a cache, say, would be written to
        kinds = ", ".join(sorted({type(value).__name__ for value in call.foreign}))
        return wrap_opaque(model, call, f"it takes a {kinds} as an argument, which a graph cannot be pinned to")
    with quiet_output(), _without_collector():
        program = _record(model, call, gate=gate)
        if isinstance(program, Delta):  # what the first forward of all sets up, later ones find
            state = ModelState(model)
            program.apply()
            try:
                settled = _record(model, call, gate=gate, settled=program)
            finally:
                state.restore()
            assert isinstance(settled, Program)
            return settled
    return program


def _record(model: nn.Module, call: Call, *, gate: bool, settled: Delta | None = None) -> Program | Delta:
    """Records one run; the change that it makes to the model where a run after that change may give more."""
    state = ModelState(model)
    recording = Recording(model, call, state)
    eager = one_step(model, call, state, recording.forward, backward=gate)
    if recording.drew:
        recording = Recording(model, call, state, follow_random=True)
        eager = one_step(model, call, state, recording.forward, backward=gate)
    if compat.has_global_module_hooks():
        return wrap_opaque(model, call, "hooks are registered on all modules")
    program = recording.program(eager.changed)
    if recording.unsettled and settled is None and eager.delta:
        return eager.delta
    if program is None:
        assert recording.refusal is not None
        return wrap_opaque(model, call, recording.refusal.reason, source=recording.refusal.source)
    if settled is not None and (stays := settled.without(eager.delta)):
        program.settle = stays.apply
    if not gate:
        return program
    difference = _difference(program, call, state, eager)
    if difference is not None:
        return wrap_opaque(model, call, f"the gate refused the symbolic capture, because {difference}")
    program.remarks.append(
        Remark(
            kind="passed",
            stage="capture",
            message=f"{program.name} was captured by the symbolic front end: one step equals eager in outputs, "
            "gradients, buffers and random numbers.",
        )
    )
    return program


def _difference(program: Program, call: Call, state: ModelState, eager: Step) -> str | None:
    """What tells a program from the eager model, whose recorded step is known."""
    try:
        step = program_step(program, call, state)
        # The first eager step may be unlike all later ones: libraries import on their first call.
        difference = compare(eager, step) and compare(eager_step(program.model, call, state), step)
        if difference is None:
            other: dict[str, Any] = {"seed": SEEDS[1], "backward": False}
            again = eager_step(program.model, call, state, **other)
            difference = compare(again, program_step(program, call, state, **other))
    except Exception as error:  # the program ran where eager did: whatever failed, the graph is wrong
        return f"the captured graph raised {_one_line(error)}"
    return difference


@contextmanager
def _without_collector() -> Iterator[None]:
    """Within this block Python looks for no cycles: a recording makes much that lasts, and no garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _one_line(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {str(error).strip()}".split("\n", 1)[0].rstrip(": .")


def _refuse_lazy(model: nn.Module) -> None:
    lazy = [name for name, p in model.named_parameters() if isinstance(p, nn.parameter.UninitializedParameter)]
    lazy += [name for name, b in model.named_buffers() if isinstance(b, nn.parameter.UninitializedBuffer)]
    if lazy:
        raise ModelError(
            f"The model has lazy parameters without a shape: {', '.join(lazy[:3])}.",
            why="A plan needs every size.",
            mend="Run the model once on a sample input first, or give the sizes in the constructor.",
        )
