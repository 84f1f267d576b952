"""The modules of each replica, and how replicas are run: the one place that decides on concurrency."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import fx, nn

from autopar import compat
from autopar.errors import AutoparError, ModelError

__all__ = ["WholeModel", "replica_forwards", "run_replicas"]

Forward = Callable[..., Any]


class WholeModel(nn.Module):
    """A model that stays one opaque call, behind an interface of flat tensors.

    Calls the class's own forward and not the module, because the module may be the very one whose
    forward the replicas were called from.

    Args:
        model: the user's model.
        spec: pytree structure of ``(args, kwargs)``.
        others: leaf index to value, for the leaves that are no tensors.
    """

    def __init__(self, model: nn.Module, spec: Any, others: Mapping[int, Any]) -> None:
        super().__init__()
        self.model = model
        self.bind(spec, others)

    def bind(self, spec: Any, others: Mapping[int, Any]) -> None:
        """Takes another call's structure and plain arguments for the next forward."""
        self.spec, self.others = spec, others

    def forward(self, *tensors: torch.Tensor) -> Any:
        """The model's result, in the user's structure."""
        flowing = iter(tensors)
        total = len(tensors) + len(self.others)
        leaves = [self.others[i] if i in self.others else next(flowing) for i in range(total)]
        args, kwargs = compat.tree_unflatten(leaves, self.spec)
        if "forward" in vars(self.model):
            return self.model.forward(*args, **kwargs)
        return compat.original_class(self.model).forward(self.model, *args, **kwargs)


def replica_forwards(replica: nn.Module, count: int, devices: Sequence[str] | None) -> list[Forward]:
    """One forward for each replica: the module's own for the first, and of fresh copies for the others.

    Copies are made at every call because they must see what the user changed since (the train/eval
    flag, an attribute, a buffer). A copy shares parameters with the original, or holds differentiable
    copies on another device; buffers are cloned, and what forward does to them is forgotten.
    """
    forwards: list[Forward] = [compat.compiled_forward(replica)]
    stateless = next(replica.children(), None) is None
    for index in range(1, count):
        device = None if devices is None or devices[index] == devices[0] else devices[index]
        forwards.append(replica.forward if stateless else partial(type(replica).forward, _copied(replica, device)))
    return forwards


def run_replicas(
    forwards: Sequence[Forward], calls: Sequence[Sequence[Any]], devices: Sequence[str] | None
) -> list[Any]:
    """Runs the replicas and returns their results in order.

    Replicas of several devices run in a thread each, because a device that is fed from Python waits
    for nobody else then. On one device they run one after the other in this thread.

    Raises:
        Exception: the first replica's that failed, see ``_caught``.
    """
    names = [_device_of(call) if devices is None else devices[i] for i, call in enumerate(calls)]
    if len(set(names)) < 2:
        return [_guarded(forwards[i], call, i, names[i])() for i, call in enumerate(calls)]
    results: list[Any] = [None] * len(calls)
    failures: dict[int, BaseException] = {}
    ambient = _Ambient()

    def work(index: int) -> None:
        try:
            with ambient.entered(names[index]):
                results[index] = _guarded(forwards[index], calls[index], index, names[index])()
        except BaseException as error:  # handed to the calling thread below
            failures[index] = error

    threads = [threading.Thread(target=work, args=(index,), name=f"replica-{index}") for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[min(failures)]
    return results


def _guarded(forward: Forward, call: Sequence[Any], index: int, device: str) -> Callable[[], Any]:
    def run() -> Any:
        try:
            return forward(*call)
        except AutoparError:
            raise
        except Exception as error:
            raise _caught(error, index, device) from error

    return run


def _caught(error: Exception, index: int, device: str) -> Exception:
    """An error of the same class, so that ``except`` clauses match, with place and traceback in its text."""
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    text = f"Caught {type(error).__name__} in replica {index} on device {device}.\nOriginal {trace}"
    try:
        return type(error)(text)
    except Exception:  # a class of the user's whose constructor wants something else
        return RuntimeError(text)


class _Ambient:
    """The calling thread's modes, which new threads do not inherit."""

    def __init__(self) -> None:
        self.grad = torch.is_grad_enabled()
        self.inference = torch.is_inference_mode_enabled()
        self.autocast = {
            kind: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda")
        }
        self.cache = torch.is_autocast_cache_enabled()

    def entered(self, device: str) -> ExitStack:
        """A context that puts the modes in force in this thread, with ``device`` as the current one."""
        stack = ExitStack()
        stack.enter_context(torch.inference_mode(self.inference))
        stack.enter_context(torch.set_grad_enabled(self.grad))
        for kind, (enabled, dtype) in self.autocast.items():
            stack.enter_context(torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=self.cache))
        if device.startswith("cuda"):
            stack.enter_context(torch.cuda.device(device))
        return stack


def _copied(root: nn.Module, device: str | None) -> nn.Module:
    copies = {module: _copy(module, device) for module in root.modules() if module is not root}
    copies[root] = _holder(root)
    moved: dict[int, torch.Tensor] = {}

    def there(tensor: torch.Tensor) -> torch.Tensor:
        assert device is not None
        if id(tensor) not in moved:
            moved[id(tensor)] = tensor.to(device)
        return moved[id(tensor)]

    for module, copy in copies.items():
        if copy is module:
            continue
        for name, child in module._modules.items():
            copy._modules[name] = None if child is None else copies[child]
        for name, parameter in module._parameters.items():
            if parameter is None or device is None:
                copy._parameters[name] = parameter
            else:
                setattr(copy, name, there(parameter))  # an attribute: only leaves can be parameters
        for name, buffer in module._buffers.items():
            if buffer is not None:
                buffer = buffer.detach().to(device or buffer.device, copy=True)
            copy._buffers[name] = buffer
    return copies[root]


def _copy(module: nn.Module, device: str | None) -> nn.Module:
    if not isinstance(module, torch.jit.ScriptModule):
        return compat.replica_of_module(module)
    if device is not None:
        raise ModelError(
            f"A ScriptModule inside the model cannot be copied to {device}.",
            why="Its parameters would be cut off from the original's.",
            mend="Use the plain module instead of the scripted one, or strategy 'ddp'.",
        )
    return module  # shared, buffers included


def _holder(root: nn.Module) -> nn.Module:
    """A stand-in for the root, whose forward is called on it as a function.

    A GraphModule cannot be copied cheaply: each instance has a class of its own, compiled anew.
    """
    return nn.Module() if isinstance(root, fx.GraphModule) else compat.replica_of_module(root)


def _device_of(call: Sequence[Any]) -> str:
    return next((str(value.device) for value in call if isinstance(value, torch.Tensor)), "cpu")
