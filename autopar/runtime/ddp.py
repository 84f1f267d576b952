"""Runs programs of the ``ddp`` strategy: every rank its own batch, gradients averaged in buckets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.hooks import RemovableHandle

from autopar import compat, ops
from autopar.compilation import Compilation
from autopar.errors import RankMismatchError, RuntimeStateError
from autopar.partitioner.plan import LocalParameter, Plan
from autopar.program import Program
from autopar.runtime.agreement import check_equal, copy_from_rank_0, describe, exchange
from autopar.runtime.backends import start_collectives
from autopar.runtime.buffers import BufferBroadcast
from autopar.runtime.collectives import Collectives
from autopar.runtime.device import device_of
from autopar.runtime.engine import BucketEngine
from autopar.runtime.executor import Runnable
from autopar.runtime.group import join
from autopar.runtime.slots import StateSlots

__all__ = ["DDPExecutor"]


class DDPExecutor:
    """Joins the group, starts all ranks alike, and executes programs with a bucket engine.

    Args:
        model: the user's model, on its device.
        process_group: the ranks; None is the default group, made from the launcher's environment.
        timeout: seconds that a rank waits, for a group made here.
        broadcast_buffers: send rank 0's buffers after each training forward.
        options: what must be equal on all ranks besides the model.
        init_sync: compare the models and copy rank 0's values at the start.
        backend: what carries gradients: ``"auto"``, ``"shm"`` or ``"torch"``.

    Raises:
        RankMismatchError: the ranks hold different models or options; raised alike on all.
        LaunchError: the launch environment or the group is broken.
        ModelError: the parameters are on several kinds of devices, or on none.
    """

    replicas = 1

    def __init__(
        self,
        model: nn.Module,
        *,
        process_group: dist.ProcessGroup | None,
        timeout: float,
        broadcast_buffers: bool,
        options: Mapping[str, Any],
        init_sync: bool = True,
        backend: str = "auto",
    ) -> None:
        self.model = model
        self.broadcast_buffers = broadcast_buffers
        self.backend = backend
        self.synchronise = True
        self.group = join(device_of(model), timeout=timeout, process_group=process_group)
        self.world_size = self.group.world_size
        self.engine: BucketEngine | None = None
        self.collectives: Collectives | None = None
        self._alarms: list[RemovableHandle] = []
        self.buffers: BufferBroadcast | None = None
        if init_sync and self.world_size > 1:
            check_equal(self.group, describe(model, options), what="model and options")
            copy_from_rank_0(self.group, [*model.parameters(), *model.buffers()])

    def agree(self, attempt: Callable[[Plan | None], Compilation]) -> Compilation:
        """Compiles on every rank; all follow rank 0's plan, and all fail when one fails."""
        if self.world_size == 1:
            return attempt(None)
        mine: Compilation | None = None
        failure: Exception | None = None
        try:
            mine = attempt(None)
        except Exception as error:
            failure = error
        reports = exchange(
            self.group,
            {
                "error": None if failure is None else f"{type(failure).__name__}: {failure}",
                "program": None if mine is None else mine.before.digest(),
                "guarded": mine is not None and not mine.before.guards.none,
                "plan": None if mine is None else mine.plan.to_json(),
            },
        )
        if failure is not None:
            raise failure
        assert mine is not None
        for rank, report in enumerate(reports):
            if report["error"] is not None:
                raise RankMismatchError(
                    f"Rank {rank} could not compile the model: {report['error']}",
                    mend="Mend that rank; the others stopped with it.",
                )
        # Ranks with other sizes or values in their batches may rightly have other graphs: the plan is one.
        guarded = any(report["guarded"] for report in reports)
        odd = next((rank for rank, r in enumerate(reports) if r["program"] != reports[0]["program"]), None)
        odd = None if guarded else odd
        if odd is not None:
            codes = exchange(self.group, mine.before.code.strip().splitlines())
            raise RankMismatchError(_first_difference(codes[0], codes[odd], odd), mend=_SAME_BRANCH)
        agreed = Plan.from_json(reports[0]["plan"])
        return mine if agreed == Plan.from_json(mine.plan.to_json()) else attempt(agreed)

    def prepare(self, program: Program) -> Runnable:
        """A callable that runs the program and lets the engine see its outputs."""
        assert program.plan is not None, "a lowered program has a plan"
        if program.signature.out_spec is None:
            if self.world_size > 1:
                self._start_engine(program.plan)
            return self.eager(_calls_model(self.model))
        slots, signature = StateSlots(self.model, program.lifted), program.signature
        forward = program.graph_module.forward
        flatten, unflatten, read = signature.flatten, signature.unflatten, slots.read
        if self.world_size == 1:
            return lambda args, kwargs: unflatten(forward(*read(), *flatten(args, kwargs)))
        engine = self._start_engine(program.plan)

        def run(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            leaves = flatten(args, kwargs)
            self._begin(engine)
            with ops.executing(engine):
                outputs = forward(*read(), *leaves)
            self._end(engine, outputs)
            return unflatten(outputs)

        return run

    def follow(self, plan: Plan, forward: Runnable) -> Runnable:
        """A callable that runs ``forward``, whose ``ops.sync_gradients`` calls name the plan's buckets."""
        if self.world_size == 1:
            return forward
        engine = self._start_engine(plan)

        def run(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            self._begin(engine)
            with ops.executing(engine):
                result = forward(args, kwargs)
            self._end(engine, compat.tree_flatten(result)[0])
            return result

        return run

    def eager(self, forward: Runnable) -> Runnable:
        """A callable that runs the user's own forward, with every gradient gathered by hooks."""
        if self.world_size == 1:
            return forward
        assert self.engine is not None, "a program was prepared before"
        self.engine.hook_everything()
        return self.follow(self.engine.plan, forward)

    def close(self) -> None:
        """Waits for what is on its way and removes hooks."""
        if self.buffers is not None:
            self.buffers.wait()
        for alarm in self._alarms:
            alarm.remove()
        if self.engine is not None:
            self.engine.close()
        if self.collectives is not None:
            self.collectives.close()

    def _start_engine(self, plan: Plan) -> BucketEngine:
        """The engine of this model; made for the first program, kept for the next ones."""
        if self.engine is None:
            parameters = dict(self.model.named_parameters())
            collectives = start_collectives(
                self.group,
                self.backend,
                device=device_of(self.model),
                nbytes=sum(p.nbytes for p in parameters.values() if p.requires_grad),
            )
            self.collectives = collectives
            self.engine = BucketEngine(plan, parameters, collectives)
            self._alarms = [
                parameters[local.name].register_post_accumulate_grad_hook(_alarm(local)) for local in plan.local
            ]
            if self.broadcast_buffers and plan.buffers:
                self.buffers = BufferBroadcast(self.model, plan.buffers, collectives, self.group.rank)
                self.engine.before_backward = self.buffers.launch
                self.engine.after_backward = self.buffers.wait
        return self.engine

    def _begin(self, engine: BucketEngine) -> None:
        if self.buffers is not None:
            self.buffers.wait()
        engine.enabled = self.synchronise
        engine.begin_forward()

    def _end(self, engine: BucketEngine, outputs: Any) -> None:
        engine.watch(outputs)


def _alarm(local: LocalParameter) -> Callable[[torch.Tensor], None]:
    """A hook for a parameter that the plan leaves out because it gets no gradient."""

    def refuse(parameter: torch.Tensor) -> None:
        raise RuntimeStateError(
            f"Parameter {local.name!r} got a gradient, which no bucket carries to the other ranks.",
            why=f"In the call that the plan was made for, {local.reason}.",
            mend="Give example_inputs that use every parameter, or freeze it with requires_grad_(False).",
        )

    return refuse


_SAME_BRANCH = "Let every rank take the same branches in forward, and give every rank inputs of one structure."


def _first_difference(one: list[str], other: list[str], rank: int) -> str:
    for index in range(max(len(one), len(other))):
        left = one[index].strip() if index < len(one) else "nothing"
        right = other[index].strip() if index < len(other) else "nothing"
        if left != right:
            return (
                f"The ranks captured different graphs: line {index + 1} is {left!r} on rank 0, "
                f"{right!r} on rank {rank}."
            )
    return f"The ranks captured different graphs (rank 0 and rank {rank})."


def _calls_model(model: nn.Module) -> Runnable:
    forward = compat.original_class(model).forward
    return lambda args, kwargs: forward(model, *args, **kwargs)
