"""Chooses the finest form of a model that is exact, and says why it went no further."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, get_args

from torch import nn

from autopar.capture.call import Call
from autopar.capture.climb import Climb
from autopar.capture.effects import NotRunError, without_effects
from autopar.capture.falls import Fall, not_done, whole
from autopar.capture.held import Delta
from autopar.capture.island_search import Budget
from autopar.capture.opaque import wrap_opaque
from autopar.collector import without_collector
from autopar.errors import ModelError, UnknownNameError
from autopar.program import FrontEnd, Program

__all__ = ["CHOICES", "capture", "check_choice", "recorded"]

CHOICES = ("auto", *get_args(FrontEnd))


def capture(
    model: nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    gate: bool = True,
    front_end: str = "auto",
    islands: bool = True,
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
        islands: whether to look for graphs inside of what stays opaque.

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
        climb = Climb(model, call, gate=gate, budget=Budget(), islands=islands)
        try:
            program = climb.run(front_end)
            if isinstance(program, Delta):  # what the first forward of all sets up, later ones find
                program = climb.run_settled(front_end, program)
        except NotRunError as error:
            fall = Fall("symbolic", f"{error}, which cannot be undone, so its forward was not run to the end")
            program = whole(model, call, [fall], front_end)
    program.arrivals = climb.arrivals
    program.remarks += not_done(program, effects.deeds)
    return program


def recorded(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Program | None:
    """What one more recording shows of a call, without a gate; None where the model cannot be recorded."""
    try:
        return capture(model, args, kwargs, gate=False, front_end="symbolic", islands=False)
    except ModelError:
        return None


def check_choice(front_end: str) -> None:
    """Refuses what is no front end.

    Raises:
        UnknownNameError: it is none.
    """
    if front_end not in CHOICES:
        raise UnknownNameError("capture front end", front_end, CHOICES)


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
            code="AP123",
        )
