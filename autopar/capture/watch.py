"""Notices what a forward does that a symbolic graph would not show."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import fx, nn

from autopar import compat
from autopar.capture.recorded import UntraceableError

__all__ = ["PLAIN", "Watch", "ambient_modes"]

_FACTORIES = (
    "arange", "empty", "eye", "full", "linspace", "logspace", "normal", "ones", "rand", "randint",
    "randn", "randperm", "scalar_tensor", "tensor", "tril_indices", "triu_indices", "zeros",
)  # fmt: skip


PLAIN = (bool, int, float, str, type(None), tuple)
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


class Watch:
    """Within ``watching()``: tensor factories become nodes, so that nothing random or mutable is
    baked in; custom ``autograd.Function``s and saved-tensor hooks (checkpointing) refuse the region
    that uses them; reads of ``module.training`` are recorded, since the graph is exact for that mode
    only, and so are reads of other attributes that hold plain values, which the graph bakes in.
    Other threads (a data loader's) are not disturbed.

    Attributes:
        read_training: the modules whose flag was read, with the flag.
        read_attributes: module and attribute name of every plain value that was read, with the value.
    """

    def __init__(self) -> None:
        self.read_training: dict[nn.Module, bool] = {}
        self.read_attributes: dict[tuple[nn.Module, str], Any] = {}
        self._thread = threading.get_ident()

    @property
    def here(self) -> bool:
        """Whether the caller runs in the thread that traces."""
        return threading.get_ident() == self._thread

    @contextmanager
    def watching(self, tracer: fx.Tracer, known: Callable[[nn.Module], bool]) -> Iterator[None]:
        """Watches everything that runs in this thread.

        Args:
            tracer: records the factories.
            known: whether a module belongs to the model, so that its flag can be compared later.
        """

        def training(module: nn.Module) -> bool:
            flag: bool = vars(module)["training"]
            if self.here:
                if not known(module):
                    raise UntraceableError(
                        f"it reads the train/eval flag of a {type(module).__name__} that is no submodule"
                    )
                self.read_training[module] = flag
            return flag

        def attribute(module: nn.Module, name: str) -> Any:
            value = object.__getattribute__(module, name)
            if type(value) in PLAIN and name not in _OF_EVERY_MODULE and name in vars(module):  # noqa: SIM102
                if self.here and known(module):
                    self.read_attributes[module, name] = value
            return value

        def apply(cls: type[torch.autograd.Function], *args: Any, **kwargs: Any) -> Any:
            if self.here:
                raise UntraceableError(f"it uses the custom autograd function {cls.__name__}")
            return original_apply(cls, *args, **kwargs)

        def enter(hooks: torch.autograd.graph.saved_tensors_hooks) -> None:
            if self.here:
                raise UntraceableError("it uses saved-tensor hooks (activation checkpointing)")
            original_enter(hooks)

        def refuse_function() -> None:
            if self.here:
                raise UntraceableError("it uses a custom autograd function")

        original_apply = torch.autograd.Function.apply.__func__  # type: ignore[attr-defined]
        original_enter = torch.autograd.graph.saved_tensors_hooks.__enter__
        with ExitStack() as stack:
            for name in _FACTORIES:
                stack.enter_context(_patched(torch, name, self._factory(getattr(torch, name), tracer)))
            stack.enter_context(_patched(nn.Module, "training", property(training, _set_training)))
            stack.enter_context(_patched(nn.Module, "__getattribute__", attribute))
            stack.enter_context(_patched(torch.autograd.Function, "apply", classmethod(apply)))
            stack.enter_context(_patched(torch.autograd.graph.saved_tensors_hooks, "__enter__", enter))
            stack.enter_context(compat.before_custom_functions(refuse_function))
            yield

    def _factory(self, factory: Callable[..., Any], tracer: fx.Tracer) -> Callable[..., Any]:
        @functools.wraps(factory)
        def record(*args: Any, **kwargs: Any) -> Any:
            if self.here:
                return tracer.create_proxy("call_function", factory, args, kwargs)
            return factory(*args, **kwargs)

        return record


def ambient_modes() -> dict[str, Any]:
    """What besides its inputs decides what an operation does."""
    return {
        "torch.is_grad_enabled()": torch.is_grad_enabled(),
        "torch.is_inference_mode_enabled()": torch.is_inference_mode_enabled(),
        "autocast state": tuple(
            (device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in ("cpu", "cuda")
        ),
    }


def _set_training(module: nn.Module, flag: bool) -> None:
    vars(module)["training"] = flag


@contextmanager
def _patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    own = name in vars(owner)
    before = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)
