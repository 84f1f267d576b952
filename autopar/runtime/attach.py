"""Puts a transformed program in front of a user's module, and takes it away again.

The module stays the same object. Its class is replaced by a subclass of the user's class with the
same name, as FSDP2 does, so that ``isinstance``, methods and attributes are the user's and only
``forward`` is ours; all of our state hangs on one attribute.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from autopar import compat
from autopar.capture.inputs import is_constant
from autopar.compilation import Compilation, compile_program, require_trainable
from autopar.errors import AutoparError, ModelError, UsageError
from autopar.partitioner.plan import Plan
from autopar.passes.dataflow import model_specs
from autopar.program import Program
from autopar.runtime.executor import Executor, Runnable
from autopar.runtime.slots import ModelGuard
from autopar.strategies.base import Strategy

__all__ = ["Attachment", "Printed", "attach", "attachment_of", "detach", "install"]

_ATTRIBUTE = "_autopar"
_MAX_PROGRAMS = 8
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A compiled program with what it is exact for."""

    key: Any
    modes: Sequence[tuple[nn.Module, bool]]
    run: Runnable

    def fits(self, key: Any) -> bool:
        return bool(self.key == key) and all(module.training is flag for module, flag in self.modes)


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
        printed: a forward that was printed from a program of this model, to run in place of capturing.

    Attributes:
        compilation: the first compilation; None before the first forward.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        pipeline: str | None = None,
        plan: Plan | None = None,
        gate: bool = True,
        printed: Printed | None = None,
    ) -> None:
        self.printed = printed
        self.strategy, self.pipeline, self.plan, self.gate = strategy, pipeline, plan, gate
        self.model: nn.Module | None = None
        self.executor: Executor | None = None
        self.compilation: Compilation | None = None
        self._gave_up = False
        self._entries: list[_Entry] = []
        self._guard: ModelGuard | None = None

    def start(self) -> Executor:
        """Joins the group and makes all ranks start alike; done once."""
        if self.executor is None:
            assert self.model is not None, "start() comes after install()"
            self.executor = self.strategy.start(self.model)
        return self.executor

    def compile(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Entry:
        """Captures this call, rewrites it and prepares it to run."""
        model, executor = self.model, self.start()
        assert model is not None
        if self.printed is not None:
            return self._follow_printed(self.printed, args, kwargs)

        def attempt(plan: Plan | None) -> Compilation:
            return compile_program(
                model,
                args,
                kwargs,
                self.strategy,
                pipeline=self.pipeline,
                plan=plan or self.plan,
                world_size=executor.world_size,
                replicas=executor.replicas,
                gate=self.gate,
            )

        if self.compilation is None:
            self.compilation = executor.agree(attempt)
            return self._remember(self.compilation.lowered, args, kwargs)
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
        return self._remember(again.lowered, args, kwargs)

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The module's forward."""
        model = self.model
        assert model is not None
        if not torch.is_grad_enabled():
            return _original_forward(model)(args, kwargs)
        if self._guard is not None and not self._guard.holds():
            if _stands_aside(model):
                return _original_forward(model)(args, kwargs)
            self.invalidate()
        key = _call_key(args, kwargs)
        for entry in self._entries:
            if entry.fits(key):
                return entry.run(args, kwargs)
        if self._guard is None and _stands_aside(model):
            return _original_forward(model)(args, kwargs)
        return self.compile(args, kwargs).run(args, kwargs)

    def invalidate(self) -> None:
        """Forgets what was compiled: the module was moved, or its parameters changed."""
        if self.executor is not None:
            self.executor.close()
        self.executor = self.compilation = self._guard = None
        self._entries.clear()

    def _remember(self, lowered: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Entry:
        assert self.executor is not None
        assert self.model is not None
        modes = [(self.model.get_submodule(path), flag) for path, flag in lowered.mode_dependent.items()]
        if self._guard is None:
            self._guard = ModelGuard(self.model)
        return self._keep(_Entry(_call_key(args, kwargs), modes, self.executor.prepare(lowered)))

    def _follow_printed(self, printed: Printed, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Entry:
        model, executor, plan = self.model, self.executor, self.plan
        assert model is not None
        assert executor is not None
        assert plan is not None
        run = executor.follow(plan, lambda args, kwargs: printed.forward(model, *args, **kwargs))
        modes = [(model.get_submodule(path), flag) for path, flag in printed.modes.items()]
        self._guard = self._guard or ModelGuard(model)
        if any(module.training is not flag for module, flag in modes):
            return self._keep(self._eager_entry(args, kwargs))
        return self._keep(_Entry(_call_key(args, kwargs), modes, run))

    def _eager_entry(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Entry:
        assert self.model is not None
        assert self.executor is not None
        modes = [(module, module.training) for module in self.model.modules()]
        run = self.executor.eager(_original_forward(self.model))
        return _Entry(_call_key(args, kwargs), modes, run)

    def _keep(self, entry: _Entry) -> _Entry:
        self._entries.append(entry)
        return entry

    def __deepcopy__(self, memo: dict[int, Any]) -> Attachment:
        return Attachment(self.strategy, pipeline=self.pipeline, plan=self.plan, gate=self.gate, printed=self.printed)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild_attachment, (self.strategy, self.pipeline, self.plan, self.gate))


def install(
    model: nn.Module, forward: Callable[..., Any], *, plan: Plan, strategy: Strategy, modes: Mapping[str, bool]
) -> nn.Module:
    """Makes ``model`` run a forward that was printed from its program; returns the same object.

    Args:
        model: a model with the parameters that the plan names.
        forward: called as ``forward(model, *args, **kwargs)``; its ``autopar.ops`` calls carry out
            the plan.
        plan: made for this model.
        strategy: the plan's strategy.
        modes: paths of the modules whose train/eval flag the source has frozen, with the flag.

    Raises:
        PlanError: the plan was made for another model.
        UsageError, ModelError, LaunchError, RankMismatchError: as ``autopar.parallelize``.
    """
    plan.check_parameters(model_specs(model))
    attachment = Attachment(strategy, plan=plan, printed=Printed(forward, dict(modes)))
    attach(model, attachment)
    attachment.start()
    return model


def attach(model: nn.Module, attachment: Attachment) -> nn.Module:
    """Makes ``model`` run through ``attachment``; returns the same object.

    Raises:
        UsageError: it or a part of it is parallel already.
        ModelError: it has nothing to train, or a subclass cannot be put in front of its class.
    """
    if attachment_of(model) is not None:
        raise UsageError(
            f"This {type(model).__name__} is parallel already.",
            mend="Call autopar.unparallelize(model) first to choose another strategy.",
        )
    if isinstance(model, _WRAPPERS):
        raise UsageError(
            f"The model is wrapped in torch's {type(model).__name__}.", mend="Give the model inside: model.module."
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(
            "The model is a ScriptModule, whose class cannot be extended.", mend="Give the plain module instead."
        )
    if "forward" in vars(model):
        raise ModelError(
            f"The forward of this {type(model).__name__} was replaced on the instance, so its class's never runs.",
            mend="Parallelize the model first, then wrap or compile it; or put the new forward into a class.",
        )
    for path, module in model.named_modules():
        if path and (isinstance(module, _WRAPPERS) or attachment_of(module) is not None):
            raise UsageError(
                f"The submodule {path!r} of this {type(model).__name__} is parallel already, as "
                f"{'autopar' if attachment_of(module) is not None else 'torch'}'s {type(module).__name__}.",
                why="Its gradients would be reduced twice.",
                mend="Parallelize the outermost module alone.",
            )
    require_trainable(model)
    _install(model, attachment)
    return model


def detach(model: nn.Module) -> nn.Module:
    """Undoes ``attach``: the module is the user's own again; returns the same object."""
    attachment = attachment_of(model)
    if attachment is not None:
        attachment.invalidate()
        del vars(model)[_ATTRIBUTE]
        model.__class__ = compat.original_class(model)
    return model


def attachment_of(model: nn.Module) -> Attachment | None:
    """What is attached to a module, or None."""
    found = vars(model).get(_ATTRIBUTE)
    return found if isinstance(found, Attachment) else None


def _install(model: nn.Module, attachment: Attachment) -> None:
    if attachment.model is None:  # else this is a shallow copy, whose original keeps the attachment
        attachment.model = model
    vars(model)[_ATTRIBUTE] = attachment
    original: Any = compat.original_class(model)
    model.__class__ = _parallel_class(original)


def _serving(module: nn.Module) -> Attachment | None:
    """The attachment that runs this module.

    None for objects that other code made from the parallel class: a shallow copy, which shares its
    parameters with a module that is served already, and a new instance (``type(model)(...)``).
    """
    attachment = attachment_of(module)
    if attachment is not None and attachment.model is None:  # a deep copy by a __deepcopy__ of the user's
        attachment.model = module
    return attachment if attachment is not None and attachment.model is module else None


class _Unannounced:
    """Stands before the user's class, so that its ``__init_subclass__`` hears nothing of ours."""

    def __init_subclass__(cls) -> None:
        pass


@functools.cache
def _parallel_class(original: Any) -> type[Any]:
    @functools.wraps(original.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        attachment = _serving(self)
        return original.forward(self, *args, **kwargs) if attachment is None else attachment.run(args, kwargs)

    def _apply(self: nn.Module, fn: Callable[..., Any], recurse: bool = True) -> nn.Module:
        places = _places(self)
        moved: nn.Module = original._apply(self, fn, recurse)
        attachment = _serving(self)
        if attachment is not None and _places(self) != places:
            attachment.invalidate()
        return moved

    def reduce(self: nn.Module, protocol: Any) -> Any:
        reduced: tuple[Any, ...] = original.__reduce_ex__(self, protocol)
        function, args, *rest = reduced
        plain = tuple(original if arg is type(self) else arg for arg in args)
        if rest and isinstance(rest[0], dict):
            rest[0] = {name: value for name, value in rest[0].items() if name != _ATTRIBUTE}
        return (_restore, (attachment_of(self), function, plain), *rest)

    announces = any("__init_subclass__" in vars(base) for base in original.__mro__[:-1])
    make: Callable[..., type[Any]] = type(original)  # the user's metaclass, if there is one
    return make(
        original.__name__,
        (_Unannounced, original) if announces else (original,),
        {
            "__module__": original.__module__,
            "__qualname__": original.__qualname__,
            "__doc__": original.__doc__,
            "__reduce_ex__": reduce,
            "_autopar_original_class": original,
            "_apply": _apply,
            "forward": forward,
        },
    )


def _restore(attachment: Attachment | None, function: Callable[..., nn.Module], args: tuple[Any, ...]) -> nn.Module:
    model = function(*args)
    if attachment is not None:
        _install(model, attachment)
    return model


def _rebuild_attachment(strategy: Strategy, pipeline: str | None, plan: Plan | None, gate: bool) -> Attachment:
    return Attachment(strategy, pipeline=pipeline, plan=plan, gate=gate)


def _places(model: nn.Module) -> list[tuple[torch.dtype, torch.device]]:
    return [(parameter.dtype, parameter.device) for parameter in model.parameters()]


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
        "and by the value of every argument that is no tensor: give what varies as a tensor."
    )


def _original_forward(model: nn.Module) -> Runnable:
    forward = compat.original_class(model).forward
    return lambda args, kwargs: forward(model, *args, **kwargs)


def _call_key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a graph is specialised on: structure, constants, and kinds of tensors; never sizes."""
    if not kwargs and all(type(arg) is torch.Tensor for arg in args):
        spec: Any = len(args)
        leaves: Sequence[Any] = args
    else:
        leaves, spec = compat.tree_flatten((args, kwargs))
    return (
        spec,
        [_leaf_key(leaf) for leaf in leaves],
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_enabled("cuda"),
    )


def _leaf_key(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        return (leaf.dtype, leaf.device.type, leaf.dim(), leaf.layout)
    return (type(leaf), leaf) if is_constant(leaf) else type(leaf)
