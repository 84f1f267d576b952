"""What autopar keeps for one parallel module: its strategy, its executor and its compiled programs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from autopar import compat, ops
from autopar.attach.fallback import or_whole
from autopar.calls import Entry, Facts, call_key, flags
from autopar.capture import ladder
from autopar.compilation import Compilation, compile_program
from autopar.errors import AutoparError, UsageError
from autopar.partitioner.plan import Plan
from autopar.partitioner.rates import Rates
from autopar.program import Program
from autopar.progress import telling
from autopar.runtime.executor import Executor, Runnable
from autopar.runtime.notices import slow_capture
from autopar.runtime.sharding import ShardedOptimizer
from autopar.runtime.slots import ModelGuard
from autopar.strategies.base import Strategy

__all__ = ["Attachment", "Printed"]

_MAX_PROGRAMS = 8


@dataclass(frozen=True, slots=True)
class Printed:
    """A transformed forward in the form of Python source.

    Attributes:
        forward: called as ``forward(model, *args, **kwargs)``.
        modes: paths of the modules whose train/eval flag the source has frozen, with the flag; in
            another mode the model's own forward runs.
    """

    forward: Callable[..., Any]
    modes: Mapping[str, bool]


class Attachment:
    """Everything that autopar keeps for one parallel module.

    Args:
        strategy: decides pipeline and runtime.
        pipeline: another pass pipeline than the strategy's.
        plan: a plan to follow instead of solving one.
        gate: compare one step of each captured program with eager.
        capture: the front end of every capture, see ``autopar.capture.ladder.capture``.
        printed: a forward that was printed from a program of this model, to run in place of capturing.

    Attributes:
        compilation: the first compilation; None before the first forward.
        sharded: optimizers of the model's parameters whose state the ranks divide.
        before_forward: called at the start of each forward; None outside of ``autopar.join``.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        pipeline: str | None = None,
        plan: Plan | None = None,
        gate: bool = True,
        capture: str = "auto",
        printed: Printed | None = None,
    ) -> None:
        self.printed, self.capture = printed, capture
        self.strategy, self.pipeline, self.plan, self.gate = strategy, pipeline, plan, gate
        self.model: nn.Module | None = None
        self.executor: Executor | None = None
        self.compilation: Compilation | None = None
        self.sharded: list[ShardedOptimizer] = []
        self.before_forward: Callable[[], None] | None = None
        self._gave_up = False
        self._entries: list[Entry] = []
        self._guard: ModelGuard | None = None

    def start(self) -> Executor:
        """Joins the group and makes all ranks start alike; done once."""
        if self.executor is None:
            assert self.model is not None, "start() comes after install()"
            self.executor = self.strategy.start(self.model)
        return self.executor

    @contextmanager
    def accumulating(self) -> Iterator[None]:
        """Within this block forwards are not synchronised: backward only adds to the local ``.grad``."""
        executor = self.start()
        before, executor.synchronise = executor.synchronise, False
        try:
            yield
        finally:
            executor.synchronise = before

    def compile(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, capture: str | None = None) -> Entry:
        """Captures this call, rewrites it and prepares it to run; ``capture`` is for this call alone."""
        model, executor = self.model, self.start()
        assert model is not None
        if compat.inside_torch_ddp():
            raise UsageError(
                f"This {type(model).__name__} is parallel already, and torch's DistributedDataParallel is around it.",
                why="Both would reduce its gradients.",
                mend="Leave one out: where a trainer wraps the model, give it the plain one and use `autopar run`.",
            )
        if self.printed is not None:
            return self._follow_printed(self.printed, args, kwargs)

        def attempt(plan: Plan | None, rates: Rates | None = None, captured: Program | None = None) -> Compilation:
            def compiled(front_end: str | None) -> Compilation:
                return compile_program(
                    model,
                    args,
                    kwargs,
                    self.strategy,
                    pipeline=self.pipeline,
                    plan=plan or self.plan,
                    world_size=executor.world_size,
                    replicas=executor.replicas,
                    rates=rates,
                    captured=captured if front_end is None else None,
                    gate=self.gate,
                    capture=front_end or capture or self.capture,
                )

            with telling(slow_capture(compat.original_class(model).__name__)):
                if self.pipeline is not None or (capture or self.capture) != "auto":
                    return compiled(None)  # what was asked for, or an error
                return or_whole(model, args, kwargs, compiled)

        if self.compilation is None:
            self.compilation = executor.agree(attempt)
            return self._remember(self.compilation, args, kwargs)
        if len(self._entries) >= _MAX_PROGRAMS:
            # Something varies from call to call, such as a step number: do not compile for ever.
            if not self._gave_up:
                warnings.warn(_too_many_kinds(model), stacklevel=2)
                self._gave_up = True
            return self._eager_entry(args, kwargs)
        # Ranks reach a new kind of call at different steps, if at all: keep to the agreed plan and
        # send nothing. A graph that cannot follow the plan is not used; hooks serve the plan then.
        try:
            again = attempt(self.compilation.plan)
        except AutoparError:
            return self._keep(self._eager_entry(args, kwargs))
        return self._remember(again, args, kwargs)

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The module's forward."""
        model = self.model
        assert model is not None
        if self.before_forward is not None:
            self.before_forward()
        if not torch.is_grad_enabled():
            return _original_forward(model)(args, kwargs)
        if self._guard is not None and not self._guard.holds():
            if _stands_aside(model):
                return _original_forward(model)(args, kwargs)
            self.invalidate()
        key = call_key(args, kwargs)
        uncertain = []
        for entry in self._entries:
            fits = entry.fits(key, args, kwargs)
            if fits:
                return entry.run(args, kwargs)
            if fits is None:
                uncertain.append(entry)
        if self._guard is None and _stands_aside(model):
            return _original_forward(model)(args, kwargs)
        # Only a recording rests on sizes inside the model.
        with ops.alone():
            captured = ladder.recorded(model, args, kwargs) if uncertain else None
        for entry in uncertain:
            if captured is not None and entry.confirm(captured, args, kwargs):
                return entry.run(args, kwargs)
        return self.compile(args, kwargs).run(args, kwargs)

    def traced(self) -> Runnable | None:
        """What dynamo can follow in place of ``run``; None where there is none, or not yet, and the graph breaks."""
        if self.executor is None or self.before_forward is not None:
            return None
        return self.executor.traced()

    def run_as(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs what stands for the module's forward for now; hooks gather the gradients, whatever it uses."""
        model = self.model
        assert model is not None
        if self._guard is not None and not self._guard.holds() and not _stands_aside(model):
            self.invalidate()
        if not torch.is_grad_enabled() or _stands_aside(model):
            return forward(*args, **kwargs)
        if self.compilation is None:
            # A call that no pass can repeat: this forward may log, or step an optimizer.
            self.compile((forward,), {}, capture="opaque")
        assert self.executor is not None
        return self.executor.eager(lambda args, kwargs: forward(*args, **kwargs))(args, kwargs)

    def invalidate(self) -> None:
        """Forgets what was compiled: the module was moved, or its parameters changed."""
        if self.executor is not None:
            self.executor.close()
        self.executor = self.compilation = self._guard = None
        self._entries.clear()

    def _remember(self, compilation: Compilation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Entry:
        lowered = compilation.lowered
        if lowered.settle is not None:
            lowered.settle()
        assert self.executor is not None
        assert self.model is not None
        facts = Facts(self.model, {**flags(lowered.mode_dependent), **lowered.attributes})
        if self._guard is None:
            self._guard = ModelGuard(self.model)
        run = self.executor.prepare(lowered)
        return self._keep(Entry(call_key(args, kwargs), facts, run, compilation.before))

    def _follow_printed(self, printed: Printed, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Entry:
        model, executor, plan = self.model, self.executor, self.plan
        assert model is not None
        assert executor is not None
        assert plan is not None
        run = executor.follow(plan, lambda args, kwargs: printed.forward(model, *args, **kwargs))
        facts = Facts(model, flags(printed.modes))
        self._guard = self._guard or ModelGuard(model)
        if not facts.hold():
            return self._keep(self._eager_entry(args, kwargs))
        return self._keep(Entry(call_key(args, kwargs), facts, run))

    def _eager_entry(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Entry:
        assert self.model is not None
        assert self.executor is not None
        facts = Facts(self.model, flags({path: module.training for path, module in self.model.named_modules()}))
        run = self.executor.eager(_original_forward(self.model))
        return Entry(call_key(args, kwargs), facts, run)

    def _keep(self, entry: Entry) -> Entry:
        self._entries.append(entry)
        return entry

    def __deepcopy__(self, memo: dict[int, Any]) -> Attachment:
        copy = self._rebuild(self.strategy, self.pipeline, self.plan, self.gate, self.capture)
        copy.printed = self.printed
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        return (self._rebuild, (self.strategy, self.pipeline, self.plan, self.gate, self.capture))

    @classmethod
    def _rebuild(
        cls, strategy: Strategy, pipeline: str | None, plan: Plan | None, gate: bool, capture: str
    ) -> Attachment:
        return cls(strategy, pipeline=pipeline, plan=plan, gate=gate, capture=capture)


def _stands_aside(model: nn.Module) -> bool:
    """Whether this call trains nothing of the model, so that there is nothing to synchronise.

    Either everything is frozen for now, as a discriminator is while its generator trains, or the
    parameters are tensors of the caller's (``torch.func.functional_call``), which get the gradients.
    """
    parameters = list(model.parameters())
    return not any(p.requires_grad for p in parameters) or not all(isinstance(p, nn.Parameter) for p in parameters)


def _too_many_kinds(model: nn.Module) -> str:
    return (
        f"autopar compiled {type(model).__name__} for {_MAX_PROGRAMS} kinds of calls and runs further kinds eagerly, "
        "with gradients gathered by hooks. Calls differ in kind by their structure, by dtypes and numbers of dims, "
        "by the value of every argument that is no tensor, and by the sizes and values that its Python code looks at: "
        "give what varies as a tensor, or pad."
    )


def _original_forward(model: nn.Module) -> Runnable:
    forward = compat.original_class(model).forward
    return lambda args, kwargs: forward(model, *args, **kwargs)
