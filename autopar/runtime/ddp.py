"""Runs programs of the ``ddp`` strategy: every rank its own batch, gradients averaged in buckets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.hooks import RemovableHandle

from autopar import compat, ops
from autopar.compilation import Compilation
from autopar.errors import RuntimeStateError
from autopar.islands import around, stand_ins
from autopar.partitioner.plan import Plan
from autopar.program import Program
from autopar.runtime.accumulation import micro_steps_of_all
from autopar.runtime.agreed_plan import agree_on_plan
from autopar.runtime.agreement import check_equal, copy_from_rank, describe
from autopar.runtime.backward_optimizers import BackwardOptimizers
from autopar.runtime.batch_norm import SharedNorms
from autopar.runtime.buffers import BufferBroadcast
from autopar.runtime.collectives import Collectives
from autopar.runtime.comm_hook import CommHook
from autopar.runtime.connections import Connections
from autopar.runtime.device import device_of
from autopar.runtime.engine import BucketEngine
from autopar.runtime.executor import Attempt, Runnable
from autopar.runtime.group import join
from autopar.runtime.refusals import refuse_gradient
from autopar.runtime.slots import StateSlots
from autopar.runtime.traced import TracedForward, at_first_gradient
from autopar.runtime.tracing import make_engine
from autopar.runtime.usage import ParameterUsage
from autopar.runtime.weighing import Weigh
from autopar.runtime.weighted import WeightedMean

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
        init_sync_buffers: compare and copy the buffers, too.
        backend: what carries gradients: ``"auto"``, ``"shm"`` or ``"torch"``.
        comm_hook: what reduces a bucket in the place of an all-reduce.
        ignore: names of parameters and buffers that each rank keeps to itself.
        dynamic: graphs may differ from call to call and from rank to rank.
        all_buffers: keep those equal, too, that forward only reads.
        accumulate: backwards that make one optimizer step.
        sync_batch_norm: all batch norms share statistics, and not only those of ``nn.SyncBatchNorm``.
        weigh: how much a call's gradients count in the mean; None lets every rank's count alike.
        measure: find out how fast the ranks compute and send before the plan is solved.
        compile: settings of ``torch.compile``, under which programs run then; None runs them as they are.

    Attributes:
        at_backward_end: called after each synchronised backward with the names of the parameters that
            got no gradient; to be set before the first forward.
        divisor: what sums of gradients are divided by where that is not the world size.
        buffer_source: the rank whose buffers count.

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
        init_sync_buffers: bool = True,
        backend: str = "auto",
        comm_hook: CommHook | None = None,
        ignore: Collection[str] = (),
        dynamic: bool = False,
        all_buffers: bool = False,
        accumulate: int = 1,
        sync_batch_norm: bool = False,
        weigh: Weigh | None = None,
        measure: bool = False,
        compile: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.comm_hook, self.ignore, self.dynamic = comm_hook, frozenset(ignore), dynamic
        self.all_buffers, self.compile = all_buffers, compile
        self.accumulate, self.weigh = accumulate, weigh
        self.at_backward_end: Callable[[list[str]], None] | None = None
        self.divisor: int | None = None
        self.buffer_source = 0
        self._compilation: Compilation | None = None
        self._uneven: tuple[int | None, int] = (None, 0)
        self.broadcast_buffers = broadcast_buffers
        self.synchronise = True
        self.group = join(device_of(model), timeout=timeout, process_group=process_group)
        self.world_size = self.group.world_size
        self.connections = Connections(model, self.group, backend=backend, measure=measure)
        self.reduces = self.world_size > 1 or accumulate > 1 or weigh is not None
        self.engine: BucketEngine | None = None
        self._alarms: list[RemovableHandle] = []
        self._traced: TracedForward | None = None
        self.buffers: BufferBroadcast | None = None
        self.norms = SharedNorms(
            model, every=sync_batch_norm, connect=self.connections.for_norms if self.world_size > 1 else None
        )
        self._plain = _calls_model(model)  # after norms, which change what a forward is
        if init_sync and self.world_size > 1:
            own = self.ignore if init_sync_buffers else self.ignore | {name for name, _ in model.named_buffers()}
            check_equal(self.group, describe(model, options, own), what="model and options")
            copy_from_rank(self.group, self.shared_state(buffers=init_sync_buffers))

    @property
    def sends_next(self) -> bool:
        """Whether the backward of the next forward communicates."""
        within = self.accumulate > 1 if self.engine is None else self.engine.window.open
        return self.synchronise and not within

    def shared_state(self, *, buffers: bool = True) -> list[torch.Tensor]:
        """What all ranks have in common: parameters and buffers but the ignored ones."""
        named = [*self.model.named_parameters(), *(self.model.named_buffers() if buffers else ())]
        return [tensor for name, tensor in named if name not in self.ignore]

    def agree(self, attempt: Attempt) -> Compilation:
        """Compiles on every rank; all follow rank 0's plan, and all fail when one fails."""
        if self.world_size == 1:
            return attempt(None, None)
        rates = self.connections.rates(hooked=self.comm_hook is not None)
        mine: Compilation | None = None
        failure: Exception | None = None
        try:
            mine = attempt(None, rates)
        except Exception as error:
            failure = error
        agreed = agree_on_plan(self.group, mine, failure, dynamic=self.dynamic)
        assert mine is not None
        follows = agreed == Plan.from_json(mine.plan.to_json())
        self._compilation = mine if follows else attempt(agreed, rates, mine.before)
        return self._compilation

    def collectives(self) -> Collectives:
        """What carries the messages of the runtime; called on all ranks at the same point."""
        return self.connections.start(hooked=self.comm_hook is not None)

    def follow_others(self) -> None:
        """Does as ``agree`` and ``prepare`` on a rank without a batch: takes over the plan of the others."""
        self.connections.rates(hooked=self.comm_hook is not None)
        self._start_engine(agree_on_plan(self.group, None, None, dynamic=self.dynamic))

    def prepare(self, program: Program) -> Runnable:
        """A callable that runs the program and lets the engine see its outputs."""
        assert program.plan is not None, "a lowered program has a plan"
        if self.compile is not None:
            return self._prepare_compiled(program, self.compile)
        islands = stand_ins(program, _reads_lifted)
        if program.signature.out_spec is None:
            if self.reduces:
                self._start_engine(program.plan)
            return self.eager(around(islands, self._plain))
        slots, signature = StateSlots(self.model, program.lifted), program.signature
        forward = around(islands, compat.compiled_forward(program.graph_module))
        flatten, unflatten, read = signature.flatten, signature.unflatten, slots.read
        if not self.reduces:
            return lambda args, kwargs: unflatten(forward(*read(), *flatten(args, kwargs)))
        engine = self._start_engine(program.plan)

        def run(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            leaves = flatten(args, kwargs)
            weight = self._begin(engine, args, kwargs)
            with ops.executing(engine):
                outputs = forward(*read(), *leaves)
            self._end(engine, outputs, weight)
            return unflatten(outputs)

        return run

    def _prepare_compiled(self, program: Program, settings: Mapping[str, Any]) -> Runnable:
        from autopar.runtime.compiled import CompiledProgram, compile_function  # what only compilers need

        assert program.plan is not None
        self.norms.refuse_compilation()
        engine = self._start_engine(program.plan) if self.reduces else None
        if program.signature.out_spec is None:
            return self.eager(compile_function(self._plain, settings=settings, fullgraph=False))
        compiled = CompiledProgram(program, self.connections.in_graphs(), settings)
        slots, signature = StateSlots(self.model, program.lifted), program.signature
        flatten, unflatten, read = signature.flatten, signature.unflatten, slots.read
        if engine is None:
            return lambda args, kwargs: unflatten(compiled.local(*read(), *flatten(args, kwargs)))
        possible = compiled.carries and self.comm_hook is None and self.accumulate == 1 and self.weigh is None

        def run(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            leaves = flatten(args, kwargs)
            # Local gradients of earlier backwards belong into the mean, so they wait for the end of this one.
            carried = possible and self.synchronise and not engine.pending and self.divisor is None
            weight = self._begin(engine, args, kwargs, carried=carried)
            outputs = (compiled.synced if carried else compiled.local)(*read(), *leaves)
            self._end(engine, outputs, weight)
            return unflatten(outputs)

        return run

    def follow(self, plan: Plan, forward: Runnable) -> Runnable:
        """A callable that runs ``forward``, whose ``ops.sync_gradients`` calls name the plan's buckets."""
        if not self.reduces:
            return forward
        engine = self._start_engine(plan)

        def run(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            weight = self._begin(engine, args, kwargs)
            with ops.executing(engine):
                result = forward(args, kwargs)
            self._end(engine, compat.tree_flatten(result)[0], weight)
            return result

        return run

    def eager(self, forward: Runnable) -> Runnable:
        """A callable that runs the user's own forward, with every gradient gathered by hooks."""
        if not self.reduces:
            return forward
        assert self.engine is not None, "a program was prepared before"
        self.engine.hook_everything()
        return self.follow(self.engine.plan, forward)

    def traced(self) -> Runnable | None:
        """See ``Executor.traced``: a graph with all collectives where operations can carry them, else hooks."""
        engine = self.engine
        if not self.reduces:
            return self._plain
        if engine is None or engine.weights is not None or self.divisor is not None:
            return None
        within, engine.enabled = self._traced, self.synchronise
        if within is not None and self.synchronise and not engine.pending and within.fits():
            engine.stay_outside()
            return within
        if not engine.hooks_everything:
            return None
        engine.begin_followed()
        return self._plain

    def prepare_traced(self) -> None:
        """See ``Executor.prepare_traced``."""
        if self.engine is not None:
            self.engine.hook_everything()

    def close(self) -> None:
        """Waits for what is on its way and removes hooks."""
        if self.buffers is not None:
            self.buffers.wait()
        for alarm in self._alarms:
            alarm.remove()
        self.norms.close()
        if self.engine is not None:
            self.engine.close()
        self.connections.close()

    def _start_engine(self, plan: Plan) -> BucketEngine:
        """The engine of this model; made for the first program, kept for the next ones."""
        if self.engine is None:
            parameters = dict(self.model.named_parameters())
            collectives = self.collectives()
            self.engine = make_engine(plan, self.model, collectives, self.comm_hook, self.group, self._compilation)
            self.engine.window.size = self.accumulate
            if self.weigh is not None:
                self.engine.weights = WeightedMean(self.engine.buckets, collectives, self.group)
            self._alarms = [
                parameters[local.name].register_post_accumulate_grad_hook(refuse_gradient(local))
                for local in plan.local
                if local.name not in self.ignore
            ]
            if self.at_backward_end is not None:
                self.engine.usage = ParameterUsage(self.engine.buckets, self.at_backward_end)
            optimizers = BackwardOptimizers(p for bucket in self.engine.buckets for p in bucket.parameters)
            if optimizers:
                self.engine.after_backward.append(optimizers.step)
            constant = self._constant_buffers(plan)
            if self.world_size > 1 and self.broadcast_buffers and (plan.buffers or constant):
                self.buffers = BufferBroadcast(self.model, plan.buffers, constant, collectives, self.group)
                self.engine.before_backward = self.buffers.launch
                self.engine.after_backward.append(self.buffers.wait)
            extras = self.comm_hook or self.norms or self.all_buffers or self.accumulate > 1
            if self.group.handle is not None and not extras and TracedForward.can_carry(plan):
                self._traced = TracedForward(self.model, plan, self.group.handle)
                if self.buffers is not None:
                    self._alarms.append(at_first_gradient(plan, self.model, self.engine, self.buffers))
        return self.engine

    def _constant_buffers(self, plan: Plan) -> list[str]:
        """Buffers that forward does not write but the script may."""
        if not self.all_buffers:
            return []
        return [name for name, _ in self.model.named_buffers() if name not in self.ignore and name not in plan.buffers]

    def flush(self) -> int:
        """Ends an unfinished window of accumulation on all ranks; gives the backwards that went into it."""
        if self.engine is None:
            raise RuntimeStateError("flush() was called before the first forward.", mend="Train a batch before.")
        window = self.engine.window
        total = micro_steps_of_all(self.group, window.done, self.engine.steps)
        if total:
            self.engine.flush(total / self.world_size)
        return total

    def shadow(self) -> None:
        """Takes part in a backward of the other ranks without a batch of its own."""
        assert self.engine is not None, "follow_others() comes first"
        self._follow_uneven(self.engine)
        self.engine.shadow()

    def _follow_uneven(self, engine: BucketEngine) -> None:
        """Tells the parts what uneven inputs have changed since the last step; mostly nothing."""
        if (self.divisor, self.buffer_source) != self._uneven:
            self._uneven = (self.divisor, self.buffer_source)
            engine.divide_by(self.divisor or self.world_size)
            if self.buffers is not None:
                self.buffers.source = self.buffer_source

    def _begin(
        self, engine: BucketEngine, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, carried: bool = False
    ) -> float:
        if self.buffers is not None:
            self.buffers.wait()
        engine.enabled = self.synchronise
        self._follow_uneven(engine)
        engine.begin_forward(carried=carried)
        return 1.0 if self.weigh is None else self.weigh(self.model, args, kwargs)

    def _end(self, engine: BucketEngine, outputs: Any, weight: float) -> None:
        if engine.weights is not None:
            engine.weights.watch(outputs, weight)
        engine.watch(outputs)


def _reads_lifted(model: nn.Module, names: Sequence[str]) -> Callable[[], Sequence[torch.Tensor]]:
    return StateSlots(model, names).read


def _calls_model(model: nn.Module) -> Runnable:
    forward = compat.original_class(model).forward
    return lambda args, kwargs: forward(model, *args, **kwargs)
