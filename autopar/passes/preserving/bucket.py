"""Takes the partitioner's decision into the program: the Plan."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from autopar import compat
from autopar.capture.aliasing import written_reads
from autopar.errors import OptionError
from autopar.partitioner.buckets import assign_buckets, merge_buckets
from autopar.partitioner.plan import BucketSpec, LocalParameter, ParameterSpec, Plan
from autopar.partitioner.prediction import Prediction, predict
from autopar.partitioner.rates import Rates
from autopar.partitioner.timeline import Message, OperationCost, ready_times
from autopar.passes.base import PassContext, PassResult
from autopar.passes.costs import operation_costs
from autopar.passes.dataflow import attribute, parameter_specs
from autopar.program import Program, Remark

__all__ = ["AssignBuckets"]

MIB = 1024 * 1024
_CAP_MB = 25.0


@dataclass(frozen=True, slots=True)
class AssignBuckets:
    """Solves the bucketing, or adopts the plan that the context brings.

    Args:
        cap_mb: size at which a bucket is closed, in MiB; 0 is one parameter a bucket. None leaves the sizes,
            up to 25 MiB, to the cost model where speeds were measured or given, else it is 25.
        first_mb: the same for the first bucket, in MiB; never above ``cap_mb``.

    Raises:
        OptionError: a cap is no number, or negative.
    """

    cap_mb: float | None = None
    first_mb: float = 1.0
    name: ClassVar[str] = "bucket"
    requires: ClassVar[frozenset[str]] = frozenset({"backward-order"})
    provides: ClassVar[frozenset[str]] = frozenset({"plan", "buckets"})

    def __post_init__(self) -> None:
        for option, value in (("cap_mb", _CAP_MB if self.cap_mb is None else self.cap_mb), ("first_mb", self.first_mb)):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value < math.inf:
                raise OptionError(
                    f"The option {option} of pass 'bucket' is {value!r}.", mend="It must be a number of MiB, 0 or more."
                )

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Sets ``program.plan``.

        Raises:
            PlanError: the context's plan was made for another model.
        """
        specs = parameter_specs(program)
        if ctx.plan is not None:
            ctx.plan.check_parameters(specs)
            # The plan may come from another branch of the model, in whose order its buckets are.
            own = program.ready_order if program.guards.none else ()
            followed = Remark(
                code="AP210",
                kind="passed",
                stage=self.name,
                message=f"The plan that was given is followed: {len(ctx.plan.buckets)} buckets.",
            )
            program = dataclasses.replace(program, plan=ctx.plan, ready_order=own)
            return PassResult(program, changed=True, remarks=(followed,))
        ignored = set(ctx.options.get("ignore", ()))
        specs, order = _with_what_other_calls_use(program, specs, always=ctx.options.get("dynamic", False))
        order = tuple(name for name in order if name not in ignored)
        costs, users = operation_costs(program)
        rates = _calibrated(ctx.rates, program, costs)
        ctx = dataclasses.replace(ctx, rates=rates)
        buckets = self._solve(specs, order, ctx, costs, users)
        placed = {name for bucket in buckets for name in bucket.parameters}
        plan = Plan(
            strategy=ctx.strategy,
            pipeline=ctx.pipeline,
            model=program.name,
            parameters=tuple(specs),
            buckets=buckets,
            local=tuple(
                LocalParameter(
                    name=spec.name,
                    reason="it is to be ignored" if spec.name in ignored else "no path leads from it to an output",
                )
                for spec in specs
                if spec.name not in placed
            ),
            buffers=tuple(name for name in _written_buffers(program) if name not in ignored),
            program=program.digest(),
            options=ctx.options,
            prediction=_prediction(buckets, ctx, costs, users),
        )
        remark = Remark(
            code="AP208",
            kind="passed",
            stage=self.name,
            message=f"{len(placed)} parameters travel in {len(buckets)} buckets, {plan.nbytes:,} bytes a step.",
        )
        return PassResult(
            dataclasses.replace(program, plan=plan, ready_order=order),
            changed=True,
            remarks=(self._reasons(plan, ctx), remark),
            counters={"buckets": len(buckets), "parameters": len(placed), "bytes a step": plan.nbytes},
        )

    def _by_cost(self, ctx: PassContext) -> bool:
        """Whether the cost model decides: nobody gave a size, and the speeds are more than a guess."""
        caps_mb = ctx.options.get("bucket_caps_mb", ())
        return self.cap_mb is None and not caps_mb and ctx.rates is not None and ctx.rates.origin != "assumed"

    def _reasons(self, plan: Plan, ctx: PassContext) -> Remark:
        """What closed the buckets: the cost model or the caps, and what cannot share a message."""
        kinds = len({(b.dtype, b.device, b.layout, b.route) for b in plan.buckets})
        largest = max((bucket.nbytes for bucket in plan.buckets), default=0)
        cap_mb = _CAP_MB if self.cap_mb is None else self.cap_mb
        caps = ctx.options.get("bucket_caps_mb", ()) or (min(self.first_mb, cap_mb), cap_mb)
        how = f"closed at {', '.join(f'{cap:g}' for cap in caps)}, ... MiB"
        if self._by_cost(ctx):
            how = f"those that the cost model predicts the shortest step for, of at most {cap_mb:g} MiB"
        return Remark(
            code="AP209",
            kind="analysis",
            stage=self.name,
            message=f"Buckets are {how}; {kinds} kinds of parameters (dtype, device, layout, route) share none; "
            f"the largest has {largest:,} bytes.",
            mend="Smaller caps let messages start earlier, larger ones make fewer of them: --bucket-cap-mb.",
        )

    def _solve(
        self,
        specs: Sequence[ParameterSpec],
        order: Sequence[str],
        ctx: PassContext,
        costs: Sequence[OperationCost],
        users: Mapping[str, int],
    ) -> tuple[BucketSpec, ...]:
        caps_mb = ctx.options.get("bucket_caps_mb", ())
        cap = round((_CAP_MB if self.cap_mb is None else self.cap_mb) * MIB)
        rates, ranks = ctx.rates, ctx.world_size or 2
        if rates is not None and self._by_cost(ctx):
            ends, computed = ready_times(costs, rates)
            ready = {name: ends[place] for name, place in users.items()}
            return merge_buckets(specs, order, ready, computed, rates, ranks=ranks, cap_bytes=cap)
        return assign_buckets(
            specs,
            order,
            cap_bytes=cap,
            first_cap_bytes=min(cap, round(self.first_mb * MIB)),
            caps_bytes=[round(cap_mb * MIB) for cap_mb in caps_mb],
        )


def _calibrated(rates: Rates | None, program: Program, costs: Sequence[OperationCost]) -> Rates | None:
    """Measured rates such that they give the time that a step of this very program took.

    Operations reach different shares of a machine's speed: FLOPs and bytes say how a step divides, not how long it is.
    """
    if rates is None or rates.origin != "measured" or not program.seconds:
        return rates
    computed = ready_times(costs, rates)[1]
    return rates.slowed(program.seconds / computed) if computed else rates


def _prediction(
    buckets: Sequence[BucketSpec], ctx: PassContext, costs: Sequence[OperationCost], users: Mapping[str, int]
) -> Prediction | None:
    if ctx.rates is None:
        return None
    messages = [
        Message(nbytes=one.nbytes, last=min((users[name] for name in one.parameters if name in users), default=None))
        for one in buckets
    ]
    return predict(costs, messages, ctx.rates, ranks=ctx.world_size or 2)


def _with_what_other_calls_use(
    program: Program, specs: list[ParameterSpec], *, always: bool
) -> tuple[list[ParameterSpec], tuple[str, ...]]:
    """Specs and ready order with the parameters that this graph leaves out, where another call may use them.

    A graph that rests on sizes or values of its inputs is one of several: on another rank, or in
    the next step, another branch may run. Hooks gather what comes then; where nothing comes on any
    rank, ``.grad`` stays None. ``always`` says that any graph is one of several.
    """
    order = program.ready_order
    if program.guards.none and not always:
        return specs, order
    idle = [spec.name for spec in specs if spec.name not in order]
    hooked = [dataclasses.replace(spec, route="hook") if spec.name in idle else spec for spec in specs]
    return hooked, (*order, *idle)


def _written_buffers(program: Program) -> list[str]:
    """Buffers that forward may write: those of batch norms and of everything opaque, and what operations write."""
    norms = [module for module in program.model.modules() if compat.has_running_statistics(module)]
    writers = [*norms, *program.opaque_modules().values()]
    written = {id(buffer) for module in writers for buffer in module.buffers()}
    written |= {id(attribute(program.graph_module, name)) for name in written_reads(program.graph)}
    return [name for name, buffer in program.model.named_buffers() if id(buffer) in written]
