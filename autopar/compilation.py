"""From a model and a sample call to a lowered program: capture, then the strategy's pipeline."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from autopar import ops
from autopar.capture import ladder
from autopar.errors import ModelError
from autopar.partitioner.plan import Plan
from autopar.partitioner.rates import Rates
from autopar.passes.base import PassContext
from autopar.passes.instruments import PassRecord
from autopar.passes.leaving_out import LIMIT, bisect_limit, optional, without
from autopar.passes.observers import PassObserver
from autopar.passes.pipeline import PassEntry, build, parse, render
from autopar.passes.runner import run_pipeline
from autopar.program import Program, Remark
from autopar.progress import entering
from autopar.regions import outlined
from autopar.strategies.base import Strategy

__all__ = ["Compilation", "compile_program", "pipeline_entries"]


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


@ops.alone()
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
    rates: Rates | None = None,
    captured: Program | None = None,
    gate: bool = True,
    capture: str = "auto",
    stop_after: str | None = None,
    disabled: Collection[str] = (),
    observers: Sequence[PassObserver] = (),
) -> Compilation:
    """Captures the model and runs a pipeline over it; nothing is executed in parallel.

    Args:
        model: the user's model; it is left as it was.
        args, kwargs: the sample call.
        strategy: decides the default pipeline.
        pipeline: another pipeline as text.
        plan: a plan to follow instead of solving one.
        world_size, replicas, rates: told to the passes where known.
        captured: what an earlier compilation of the same call captured, in the place of capturing again.
        gate: compare one step of the captured program with eager.
        capture: the front end, see ``autopar.capture.ladder.capture``.
        stop_after: name of the pass after which to stop.
        disabled: names of passes to leave out of the pipeline.
        observers: told of every pass.

    Raises:
        ModelError: the model has nothing to train, or the front end that was asked for cannot capture it.
        PipelineError, OptionError, UnknownNameError: the pipeline is off; nothing has run.
        PassError: a pass failed.
        Exception: whatever the model itself raises on the sample call.
    """
    entries, left_out = pipeline_entries(strategy, pipeline, disabled)
    passes = build(entries)
    require_trainable(model)
    if captured is None:
        program = ladder.capture(model, args, kwargs, gate=gate, front_end=capture)
        program.remarks += left_out
    else:
        program = captured.snapshot()
    entering("running the passes")
    before = program.snapshot()
    ctx = PassContext(
        strategy=strategy.name,
        pipeline=render(entries),
        options=strategy.options(),
        plan=plan,
        world_size=world_size,
        replicas=replicas,
        rates=rates,
    )
    # Everything up to lowering makes the program that people read; what lifts makes the one that runs.
    cut = next((i for i, one in enumerate(passes) if "lifted" in one.provides), len(passes))
    stop_early = stop_after if stop_after not in [one.name for one in passes[cut:]] else None
    program, records = run_pipeline(program, passes[:cut], ctx, stop_after=stop_early, observers=observers)
    if stop_early is not None or cut == len(passes):
        return Compilation(before=before, program=program, lowered=outlined(program), records=records)
    lowered, more = run_pipeline(program.snapshot(), passes[cut:], ctx, stop_after=stop_after, observers=observers)
    return Compilation(before=before, program=program, lowered=outlined(lowered), records=[*records, *more])


def pipeline_entries(
    strategy: Strategy, pipeline: str | None, disabled: Collection[str] = ()
) -> tuple[tuple[PassEntry, ...], list[Remark]]:
    """The passes that will run, and a remark where ``AUTOPAR_BISECT_LIMIT`` leaves some out.

    Raises:
        PipelineError, OptionError, UnknownNameError: the pipeline cannot be read or be without these passes.
    """
    own = strategy.pipeline()
    needed = {entry.name for entry in parse(own)}
    entries = without(parse(pipeline or own), disabled, needed)
    limit = bisect_limit()
    dropped = [] if limit is None else optional(entries, needed)[limit:]
    if not dropped:
        return entries, []
    message = f"{LIMIT}={limit} leaves out these passes: {', '.join(str(entries[index]) for index in dropped)}."
    kept = tuple(entry for index, entry in enumerate(entries) if index not in dropped)
    return kept, [Remark(code="AP201", kind="analysis", stage="pipeline", message=message)]


def require_trainable(model: nn.Module) -> None:
    """Refuses a model that has nothing to synchronise.

    Raises:
        ModelError: no parameter requires a gradient.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ModelError(
            "The model has no trainable parameter, so there is no gradient to synchronise.",
            code="AP122",
            mend="Call requires_grad_(True) on what should train, or run the model as it is.",
        )
