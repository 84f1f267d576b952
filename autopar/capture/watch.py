"""Notices what a forward does besides calling torch functions."""

from __future__ import annotations

import builtins
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from autopar import compat
from autopar.capture.effects import watching_effects
from autopar.capture.recorder import Recorder
from autopar.capture.sizes import Size

__all__ = ["OF_EVERY_MODULE", "PLAIN", "Patches", "watching"]

PLAIN = frozenset({bool, int, float, str, type(None), tuple})
OF_EVERY_MODULE = frozenset(vars(nn.Module()))

Call = Callable[[nn.Module, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


@contextmanager
def watching(recorder: Recorder, call: Call) -> Iterator[Patches]:
    """Watches everything that runs in this thread; others (a data loader's) are not disturbed.

    - Calls of modules go through ``call``.
    - Reads of ``module.training`` are noted, since the graph is exact for that mode only, and so are
      reads of other attributes that hold plain values, which the graph bakes in.
    - A custom ``autograd.Function`` becomes one operation; saved-tensor hooks refuse the module that
      uses them, but for those of a checkpoint, whose operations become a region.
    - Printing and writing files refuse the module that does it: it does so in every step.
    - ``range`` over a size is noted: it takes any integer without asking for its value.

    Args:
        recorder: gets the notes.
        call: runs a module, given the class's own ``__call__``.

    Yields:
        What was changed for that, so that it can be put back for a while.
    """
    known, changed = recorder.paths, recorder.changed

    def training(module: nn.Module) -> bool:
        flag: bool = vars(module)["training"]
        if recorder.active:
            if id(module) in known:
                recorder.frames[-1].training[module] = flag
            else:
                recorder.refuse(f"it reads the train/eval flag of a {type(module).__name__} that is no submodule")
        return flag

    def attribute(module: nn.Module, name: str) -> Any:
        if changed and name in changed.get(id(module), ()) and recorder.active:
            recorder.refuse("it reads an attribute that an opaque module changes")
        value = object.__getattribute__(module, name)
        if type(value) in PLAIN and name not in OF_EVERY_MODULE and recorder.active:  # noqa: SIM102
            if id(module) in known and name in vars(module):
                recorder.frames[-1].attributes[module, name] = value
        return value

    def apply(cls: type[torch.autograd.Function], *args: Any, **kwargs: Any) -> Any:
        if not recorder.active:
            return original_apply(cls, *args, **kwargs)
        with recorder.paused():
            plain = compat.tree_map(lambda x: int.__int__(x) if type(x) is Size else x, (args, kwargs))
            result = original_apply(cls, *plain[0], **plain[1])
        recorder.record_function(cls, args, kwargs, result)
        return result

    def enter(hooks: torch.autograd.graph.saved_tensors_hooks) -> None:
        if recorder.active:
            recorder.refuse("it uses saved-tensor hooks")
        original_enter(hooks)

    def refuse_function() -> None:
        if recorder.active:
            recorder.refuse("it uses a custom autograd function by another name than Class.apply")

    def refuse_effect(deed: str) -> None:
        if recorder.active:
            recorder.refuse(deed)

    def module_call(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if not recorder.active or recorder.frames[-1].module is module or id(module) not in known:
                return original(module, *args, **kwargs)
            return call(module, original, args, kwargs)

        return run

    @contextmanager
    def checkpointed(settings: dict[str, Any], own: AbstractContextManager[None]) -> Iterator[None]:
        if not recorder.active or not torch.is_grad_enabled():
            with own:
                yield
            return
        if "context_fn" in settings:
            recorder.refuse("it makes a checkpoint with contexts of its own")
        with ExitStack() as stack:
            with recorder.paused():
                stack.enter_context(own)
            with recorder.region(settings):
                yield

    def importing(original: Callable[..., Any]) -> Callable[..., Any]:
        def load(name: str, *args: Any, **kwargs: Any) -> Any:
            if name in sys.modules:
                return original(name, *args, **kwargs)
            with recorder.paused(), patches.removed():  # what a module takes from others when it is loaded is to last
                return original(name, *args, **kwargs)

        return load

    original_apply = torch.autograd.Function.apply.__func__  # type: ignore[attr-defined]
    original_enter = torch.autograd.graph.saved_tensors_hooks.__enter__
    callers = {base for module in recorder.model.modules() for base in type(module).__mro__ if "__call__" in vars(base)}
    patches = Patches(
        [(cls, "__call__", module_call(vars(cls)["__call__"])) for cls in _subclasses(nn.Module, callers)]
        + [
            (nn.Module, "training", property(training, _set_training)),
            (nn.Module, "__getattribute__", attribute),
            (torch.autograd.Function, "apply", classmethod(apply)),
            (torch.autograd.graph.saved_tensors_hooks, "__enter__", enter),
            (builtins, "range", _Range),
            (builtins, "__import__", importing(builtins.__import__)),
            (importlib, "import_module", importing(importlib.import_module)),
            compat.checkpoint_patch(checkpointed),
        ]
    )
    with patches, compat.before_custom_functions(refuse_function), watching_effects(refuse_effect):
        yield patches


class Patches:
    """Attributes of classes and modules that are other ones within ``with patches:``.

    Args:
        patches: owner, name and value of each.
    """

    def __init__(self, patches: Sequence[tuple[Any, str, Any]]) -> None:
        self._patches = patches
        self._before: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> None:
        for owner, name, value in self._patches:
            self._before.append((owner, name, vars(owner).get(name, _NONE)))
            setattr(owner, name, value)

    def __exit__(self, *error: object) -> None:
        while self._before:
            owner, name, value = self._before.pop()
            if value is _NONE:
                delattr(owner, name)
            else:
                setattr(owner, name, value)

    @contextmanager
    def removed(self) -> Iterator[None]:
        """Within this block everything is as it was."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()


_NONE = object()


class _RangeType(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, _range)


_range = range


class _Range(metaclass=_RangeType):
    """``range``, which pins the sizes that it is given."""

    def __new__(cls, *bounds: Any) -> Any:
        return _range(*(bound.pin() if type(bound) is Size else bound for bound in bounds))


def _subclasses(base: type, classes: set[type]) -> Iterator[type]:
    return (cls for cls in classes if issubclass(cls, base) and not issubclass(cls, torch.jit.ScriptModule))


def _set_training(module: nn.Module, flag: bool) -> None:
    vars(module)["training"] = flag
