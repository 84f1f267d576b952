"""Sends ``'cuda'`` to the CPU where there is no GPU, so that a script written for one runs unedited.

A ``TorchFunctionMode`` sees every call that takes a device (factories, ``Tensor.to``, also
``torch.device('cuda')`` itself). What is not dispatched through torch functions is patched by name
and put back at the end. ``torch.cuda.is_available()`` stays False: scripts that ask keep their own
CPU path. Not covered: ``torch.cuda.Stream``, ``torch.cuda.Event`` and ``torch.Generator('cuda')``.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.overrides import TorchFunctionMode

from autopar.scripts.patching import Patches

__all__ = ["cuda_means_cpu", "names_cuda"]

_DISTRIBUTED = os.path.dirname(dist.__file__) + os.sep
_CUDA = re.compile(r"cuda(:\d+)?")


def names_cuda(value: object) -> bool:
    """Whether a device argument means a GPU: ``'cuda'``, ``'cuda:1'``, such a device, or an index.

    >>> [names_cuda(value) for value in ("cuda:1", 0, "cpu", None)]
    [True, True, False, False]
    """
    if isinstance(value, torch.device):
        return value.type == "cuda"
    if isinstance(value, str):
        return _CUDA.fullmatch(value) is not None
    return isinstance(value, int) and not isinstance(value, bool)


@contextlib.contextmanager
def cuda_means_cpu(announce: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Redirects until the end of the block, also in threads that are started in it.

    Args:
        announce: called once, when the first thing is redirected.
    """
    said: list[bool] = []

    def noted() -> None:
        # torch.compile traces this as well, and cannot trace what announces.
        if not torch.compiler.is_compiling() and not said and not _of_a_group():
            said.append(True)
            announce()

    with Patches() as patches:
        _patch_modules(patches, noted)
        _patch_cuda(patches, noted)
        if dist.is_available():
            _patch_distributed(patches, noted)
        # A mode holds for one thread only; a replica's thread or a user's own needs it as well.
        run = threading.Thread.run
        patches.set(threading.Thread, "run", lambda thread: _within(_Redirect(noted), run, thread))
        with _Redirect(noted):
            yield


def _of_a_group() -> bool:
    """Whether a process group is being made, which names every kind of device that its backend is for."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return frame.f_code.co_filename.startswith(_DISTRIBUTED)


def _within(mode: TorchFunctionMode, function: Callable[..., Any], *args: Any) -> Any:
    with mode:
        return function(*args)


class _Redirect(TorchFunctionMode):
    """Rewrites the device of torch's own calls."""

    def __init__(self, announce: Callable[[], None]) -> None:
        super().__init__()
        self.announce = announce

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        # Every torch call of the script passes here, so the common case is two look-ups.
        kwargs = dict(kwargs) if kwargs else {}
        if "device" in kwargs and names_cuda(kwargs["device"]):
            self.announce()
            kwargs["device"] = "cpu"
        special = _SPECIAL.get(func)
        if special is not None:
            return special(self.announce, func, args, kwargs)
        return func(*args, **kwargs)


def _device(announce: Callable[[], None], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if names_cuda(args[0] if args else kwargs.get("type", kwargs.get("device"))):
        announce()
        return func("cpu")
    return func(*args, **kwargs)


def _to(announce: Callable[[], None], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if len(args) > 1 and names_cuda(args[1]):
        announce()
        args = (args[0], "cpu", *args[2:])
    return func(*args, **kwargs)


def _stay(announce: Callable[[], None], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    announce()
    return args[0]


def _type(announce: Callable[[], None], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if len(args) > 1 and isinstance(args[1], str) and args[1].startswith("torch.cuda."):
        announce()
        args = (args[0], args[1].replace("torch.cuda.", "torch."), *args[2:])
    return func(*args, **kwargs)


_SPECIAL: dict[Any, Callable[..., Any]] = {
    torch.device: _device,
    torch.Tensor.to: _to,
    torch.Tensor.cuda: _stay,
    torch.Tensor.pin_memory: _stay,
    torch.Tensor.type: _type,
}


def _patch_modules(patches: Patches, announce: Callable[[], None]) -> None:
    # Module.to reads its arguments in C++, which refuses an index where there is no accelerator.
    original = nn.Module.to

    @functools.wraps(original)
    def to(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        if args and names_cuda(args[0]):
            announce()
            args = ("cpu", *args[1:])
        if names_cuda(kwargs.get("device")):
            announce()
            kwargs["device"] = "cpu"
        moved: nn.Module = original(self, *args, **kwargs)
        return moved

    def cuda(self: nn.Module, device: object = None) -> nn.Module:
        announce()
        return self

    patches.set(nn.Module, "to", to)
    patches.set(nn.Module, "cuda", cuda)
    load = torch.load

    @functools.wraps(load)
    def load_on_cpu(f: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
        # A checkpoint that was written on a GPU names it inside, so None is redirected as well.
        if not callable(map_location):
            map_location = "cpu" if map_location is None else _cpu_map(map_location)
        return load(f, map_location, *args, **kwargs)

    patches.set(torch, "load", load_on_cpu)


def _cpu_map(map_location: Any) -> Any:
    if isinstance(map_location, Mapping):
        return {key: "cpu" if names_cuda(value) else value for key, value in map_location.items()}
    return "cpu" if names_cuda(map_location) else map_location


def _patch_cuda(patches: Patches, announce: Callable[[], None]) -> None:
    # One object each: torch.compile refuses one object under two names with different rules.
    for name in ("set_device", "synchronize", "reset_peak_memory_stats"):
        patches.set(torch.cuda, name, lambda *args, **kwargs: announce())
    patches.set(torch.cuda, "current_device", lambda: 0)
    patches.set(torch.cuda, "get_device_name", lambda device=None: "CPU")
    patches.set(torch.cuda, "device", lambda device=None: contextlib.nullcontext())


def _patch_distributed(patches: Patches, announce: Callable[[], None]) -> None:
    from torch.distributed import device_mesh, distributed_c10d

    def gloo(function: Callable[..., Any], position: int) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            values = list(args)
            if len(values) > position and "nccl" in str(values[position]):
                announce()
                values[position] = "gloo"
            if "nccl" in str(kwargs.get("backend")):
                announce()
                kwargs["backend"] = "gloo"
            kwargs.pop("device_id", None)
            return function(*values, **kwargs)

        return call

    def barrier(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop("device_ids", None)
        return original_barrier(*args, **kwargs)

    def mesh(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return original_mesh("cpu" if names_cuda(device_type) else device_type, *args, **kwargs)

    original_barrier, original_mesh = dist.barrier, device_mesh.init_device_mesh
    start, group = gloo(dist.init_process_group, 0), gloo(dist.new_group, 2)
    for home in (dist, distributed_c10d):
        patches.set(home, "init_process_group", start)
        patches.set(home, "new_group", group)
        patches.set(home, "barrier", barrier)
    for home in (dist, device_mesh):
        patches.set(home, "init_device_mesh", mesh)
