"""Puts a transformed program in front of a user's module, and takes it away again.

The module stays the same object. Its class is replaced by a subclass of the user's class with the
same name, as FSDP2 does, so that ``isinstance``, methods and attributes are the user's and only
``forward`` is ours; all of our state hangs on one attribute.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from autopar import compat
from autopar.attach.attachment import Attachment, Printed
from autopar.compilation import require_trainable
from autopar.errors import ModelError, UsageError
from autopar.partitioner.plan import Plan
from autopar.passes.dataflow import model_specs
from autopar.strategies.base import Strategy
from autopar.tracebacks import as_eager

__all__ = ["attach", "attachment_of", "detach", "install"]

_ATTRIBUTE = "_autopar"
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


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
        for sharded in attachment.sharded:
            sharded.release()
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
        if attachment is None:
            return original.forward(self, *args, **kwargs)
        if torch.compiler.is_compiling():
            if not torch.is_grad_enabled():
                return original.forward(self, *args, **kwargs)
            traced = attachment.traced()
            if traced is not None:
                return traced(args, kwargs)
            from autopar.attach.untraced import run_untraced  # imports dynamo

            return run_untraced(attachment, args, kwargs)
        try:
            return attachment.run(args, kwargs)
        except Exception as error:
            raise as_eager(error)  # noqa: B904 - it is the same error

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


def _places(model: nn.Module) -> list[tuple[torch.dtype, torch.device]]:
    return [(parameter.dtype, parameter.device) for parameter in model.parameters()]
