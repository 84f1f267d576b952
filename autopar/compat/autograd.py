"""The backward that is running, hooks on gradients, checkpoints."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.utils.checkpoint
from torch import nn

__all__ = [
    "accumulates_into_leaves",
    "before_custom_functions",
    "checkpoint_patch",
    "graph_task",
    "hands_gradient_to_caller",
    "on_backward_end",
    "runs_user_hooks",
    "saves_through_hooks",
    "without_accumulate_hooks",
]


def on_backward_end(callback: Callable[[], None]) -> None:
    """Calls ``callback`` once at the end of the backward that is running now."""
    torch.autograd.Variable._execution_engine.queue_callback(callback)


def accumulates_into_leaves(accumulator: Any) -> bool:
    """Whether the running backward will add to ``.grad`` of the leaf that owns this AccumulateGrad node.

    False inside ``torch.autograd.grad``, which hands gradients to its caller instead, and where
    ``backward(inputs=...)`` leaves the parameter out.
    """
    try:
        return bool(torch._C._will_engine_execute_node(accumulator))
    except RuntimeError:  # raised for a leaf under torch.autograd.grad()
        return False


def hands_gradient_to_caller(accumulator: Any) -> bool:
    """Whether the running ``torch.autograd.grad`` was asked for the gradient of this leaf."""
    try:
        torch._C._will_engine_execute_node(accumulator)
    except RuntimeError:
        return True
    return False


def saves_through_hooks() -> bool:
    """Whether what autograd saves goes through hooks now, as within ``torch.utils.checkpoint`` (2.11-2.13)."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def graph_task() -> int:
    """Identifies the backward that is running now in this thread; -1 outside of one."""
    task: int = torch._C._current_graph_task_id()
    return task


def runs_user_hooks(parameter: nn.Parameter) -> bool:
    """Whether the user has hooks on the parameter that would see its gradient during backward."""
    return bool(parameter._backward_hooks or parameter._post_accumulate_grad_hooks)


@contextmanager
def before_custom_functions(callback: Callable[[], None]) -> Iterator[None]:
    """Within this block ``callback`` runs before every custom ``autograd.Function``.

    Also before those whose ``apply`` was bound to a name earlier, which replacing ``Function.apply``
    misses: each call asks whether the class has a ``setup_context``.
    """
    module: Any = torch.autograd.function
    original = getattr(module, "_is_setup_context_defined", None)
    if original is None:
        yield
        return

    def asked(function: Any) -> Any:
        callback()
        return original(function)

    module._is_setup_context_defined = asked
    try:
        yield
    finally:
        module._is_setup_context_defined = original


_CHECKPOINT_DEFAULTS = {
    "preserve_rng_state": True,
    "context_fn": torch.utils.checkpoint.noop_context_fn,
    "determinism_check": "default",
    "debug": False,
    "early_stop": True,
}


def checkpoint_patch(around: Callable[[dict[str, Any], AbstractContextManager[Any]], Any]) -> tuple[Any, str, Any]:
    """Owner, name and value that put ``around`` about the function of every non-reentrant checkpoint.

    ``checkpoint`` runs its function between the two halves of a generator, which it looks up in its
    module at every call (2.13).

    Args:
        around: given the settings that are not the defaults, and the checkpoint's own context, the
            context to run in instead.
    """
    module, name = torch.utils.checkpoint, "_checkpoint_without_reentrant_generator"
    original = getattr(module, name)
    signature = inspect.signature(original)

    def generator(*args: Any, **kwargs: Any) -> Iterator[None]:
        bound = signature.bind(*args, **kwargs)
        given = {name: value for name, value in bound.arguments.items() if name not in ("fn", "args", "kwargs")}
        settings = {name: value for name, value in given.items() if value != _CHECKPOINT_DEFAULTS.get(name)}
        with around(settings, contextmanager(original)(*args, **kwargs)):
            yield

    return module, name, generator


@contextmanager
def without_accumulate_hooks(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Within this block the parameters' post-accumulate-grad hooks (optimizers in backward) do not run."""
    registries = [p._post_accumulate_grad_hooks for p in parameters if p._post_accumulate_grad_hooks]
    kept = [dict(registry) for registry in registries]
    for registry in registries:
        registry.clear()
    try:
        yield
    finally:
        for registry, hooks in zip(registries, kept, strict=True):
            registry.update(hooks)
