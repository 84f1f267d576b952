"""Reads the arguments of ``DistributedDataParallel`` and refuses what torch's refuses, with the same exceptions."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from autopar.attach import attachment_of, detach
from autopar.runtime.notices import say

__all__ = ["buffers_to_sync", "check_module", "check_parameters", "device_index", "pick_group", "take_over"]


def check_module(module: object, *wrappers: type[nn.Module]) -> None:
    """Refuses what is no module, and warns of one whose gradients one of these wrappers averages already.

    Raises:
        TypeError: it is no module.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"DistributedDataParallel was given a {type(module).__name__}; it takes an nn.Module.")
    for name, part in module.named_modules():
        if isinstance(part, wrappers):
            place = f"Its submodule {name!r}" if name else "The module"
            warnings.warn(
                f"{place} is a DistributedDataParallel already; its gradients are sent and averaged twice. "
                "Wrap the plain module, which is the attribute `module` of the wrapper.",
                stacklevel=3,
            )
            return


def take_over(module: nn.Module) -> None:
    """Makes a module plain again that ``autopar.parallelize`` made parallel: its gradients are reduced once."""
    if attachment_of(module) is not None:
        detach(module)
        say(f"DistributedDataParallel takes over {type(module).__name__} from parallelize, whose options end")


def pick_group(process_group: dist.ProcessGroup | None, mesh: DeviceMesh | None) -> dist.ProcessGroup:
    """The ranks to train with.

    Raises:
        RuntimeError: a group and a mesh, or a mesh of several dimensions.
        ValueError: neither is given, and there is no default group.
    """
    if process_group is not None and mesh is not None:
        raise RuntimeError("Cannot specify both process_group and device_mesh arguments.")
    if mesh is not None:
        if mesh.ndim != 1:
            raise RuntimeError(f"Only 1D device mesh is supported, but got {mesh}.")
        return mesh.get_group(mesh_dim=0)
    if process_group is not None:
        return process_group
    if not dist.is_initialized():
        raise ValueError("Default process group has not been initialized, please make sure to call init_process_group.")
    assert dist.group.WORLD is not None
    return dist.group.WORLD


def check_parameters(module: nn.Module, ignored: Collection[str]) -> None:
    """Refuses a module that cannot train.

    Raises:
        RuntimeError: no parameter requires a gradient, or one has no shape yet.
        ValueError: the parameters are on devices of several types.
    """
    parameters = {name: p for name, p in module.named_parameters() if name not in ignored}
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise RuntimeError(
            f"DistributedDataParallel is not needed when a module, such as this {type(module).__name__}, doesn't have "
            "any parameter that requires a gradient. Call requires_grad_(True) on what should train."
        )
    lazy = [name for name, parameter in parameters.items() if nn.parameter.is_lazy(parameter)]
    if lazy:
        raise RuntimeError(
            f"Modules with uninitialized parameters can't be used with `DistributedDataParallel`: {', '.join(lazy)}. "
            "Run a dummy forward pass first."
        )
    kinds = sorted({parameter.device.type for parameter in parameters.values()})
    if len(kinds) != 1:
        raise ValueError(
            "DistributedDataParallel's input module must be on the same type of devices, "
            f"but its parameters are on {', '.join(kinds)}."
        )


def device_index(
    module: nn.Module, device_ids: Sequence[int | torch.device] | None, output_device: Any
) -> list[int] | None:
    """The one CUDA device that inputs are moved to, as ``[index]``; None where they stay.

    Raises:
        ValueError: several devices, or a module that is not on a CUDA device.
    """
    if device_ids is not None and len(device_ids) > 1:
        raise ValueError("device_ids can only be None or contain a single element.")
    if not device_ids and output_device is None:
        return None
    kinds = {parameter.device.type for parameter in module.parameters()}
    if kinds != {"cuda"}:
        raise ValueError(
            "device_ids and output_device only work with modules on one CUDA device, but got "
            f"device_ids {device_ids}, output_device {output_device} and parameters on {sorted(kinds)}. "
            "Leave both out for a module on the CPU."
        )
    if not device_ids:
        return None
    first = device_ids[0]
    index = torch.device("cuda", first).index if isinstance(first, int) else torch.device(first).index
    if index is None:
        warnings.warn("device_ids has a device without an index; inputs stay where they are.", stacklevel=3)
        return None
    return [index]


def buffers_to_sync(broadcast_buffers: bool | None, forward_sync_buffers: bool | None) -> tuple[bool, bool]:
    """Whether buffers are kept equal while training, and whether they are made equal at the start."""
    if broadcast_buffers is None:
        return forward_sync_buffers is not False, True
    ignored = " It is ignored here, as forward_sync_buffers is given." if forward_sync_buffers is not None else ""
    warnings.warn(
        "broadcast_buffers is deprecated: use forward_sync_buffers, which (unlike broadcast_buffers=False) still "
        f"makes buffers equal at the start.{ignored}",
        FutureWarning,
        stacklevel=3,
    )
    if forward_sync_buffers is not None:
        return forward_sync_buffers, True
    return broadcast_buffers, broadcast_buffers
