"""From a model and a sample call to a lowered program: capture, then the strategy's pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from autopar.capture import ladder
from autopar.errors import ModelError
from autopar.partitioner.plan import Plan
from autopar.passes.base import Pass, PassContext
from autopar.passes.pipeline import build, parse, render
from autopar.passes.runner import PassRecord, run_pipeline
from autopar.program import Program, Remark
from autopar.progress import entering
from autopar.regions import outlined
from autopar.strategies.base import Strategy

__all__ = ["Compilation", "compile_program"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilation:
    """Everything that one compilation made.

    Attributes:
        before: the program as it was captured.
        program: the transformed program, parameters read by name: what is printed and drawn.
        lowered: the same with parameters as arguments and regions as calls: what runs.
        records: what each pass did.
    """

    before: Program
    program: Program
    lowered: Program
    records: Sequence[PassRecord]

    @property
    def plan(self) -> Plan:
        """The plan that the program was built to."""
        assert self.lowered.plan is not None, "every pipeline of a strategy makes a plan"
        return self.lowered.plan

    @property
    def remarks(self) -> Sequence[Remark]:
        """All remarks, in the order in which they were made."""
        return self.lowered.remarks


def compile_program(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    strategy: Strategy,
    *,
    pipeline: str | None = None,
    plan: Plan | None = None,
    world_size: int | None = None,
    replicas: int = 1,
    gate: bool = True,
    capture: str = "auto",
    stop_after: str | None = None,
    after: Callable[[Pass, Program], None] | None = None,
) -> Compilation:
    """Captures the model and runs a pipeline over it; nothing is executed in parallel.

    Args:
        model: the user's model; it is left as it was.
        args, kwargs: the sample call.
        strategy: decides the default pipeline.
        pipeline: another pipeline as text.
        plan: a plan to follow instead of solving one.
        world_size, replicas: told to the passes where known.
        gate: compare one step of the captured program with eager.
        capture: the front end, see ``autopar.capture.ladder.capture``.
        stop_after: name of the pass after which to stop.
        after: called after each pass with the pass and the program.

    Raises:
        ModelError: the model has nothing to train, or the front end that was asked for cannot capture it.
        PipelineError, OptionError, UnknownNameError: the pipeline is off; nothing has run.
        PassError: a pass failed.
        Exception: whatever the model itself raises on the sample call.
    """
    entries = parse(pipeline or strategy.pipeline())
    passes = build(entries)
    require_trainable(model)
    program = ladder.capture(model, args, kwargs, gate=gate, front_end=capture)
    entering("running the passes")
    before = program.snapshot()
    ctx = PassContext(
        strategy=strategy.name,
        pipeline=render(entries),
        options=strategy.options(),
        plan=plan,
        world_size=world_size,
        replicas=replicas,
    )
    # Everything up to lowering makes the program that people read; what lifts makes the one that runs.
    cut = next((i for i, one in enumerate(passes) if "lifted" in one.provides), len(passes))
    stop_early = stop_after if stop_after not in [one.name for one in passes[cut:]] else None
    program, records = run_pipeline(program, passes[:cut], ctx, stop_after=stop_early, after=after)
    if stop_early is not None or cut == len(passes):
        return Compilation(before=before, program=program, lowered=outlined(program), records=records)
    lowered, more = run_pipeline(program.snapshot(), passes[cut:], ctx, stop_after=stop_after, after=after)
    return Compilation(before=before, program=program, lowered=outlined(lowered), records=[*records, *more])


def require_trainable(model: nn.Module) -> None:
    """Refuses a model that has nothing to synchronise.

    Raises:
        ModelError: no parameter requires a gradient.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ModelError(
            "The model has no trainable parameter, so there is no gradient to synchronise.",
            mend="Call requires_grad_(True) on what should train, or run the model as it is.",
        )
