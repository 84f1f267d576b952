"""Modules: their hooks, classes and copies."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.parallel import distributed as torch_ddp

__all__ = [
    "has_global_module_hooks",
    "has_module_hooks",
    "has_running_statistics",
    "inside_torch_ddp",
    "is_parametrized",
    "module_hooks",
    "original_class",
    "replica_of_module",
]


def inside_torch_ddp() -> bool:
    """Whether torch's own ``DistributedDataParallel`` runs its module at this moment."""
    wrapper: Any = torch_ddp.DistributedDataParallel  # in its home: elsewhere autopar's may stand in its place
    found: bool = wrapper._active_ddp_module is not None
    return found


def module_hooks(module: nn.Module) -> tuple[Any, ...]:
    """The registries of what a call of the module runs besides its ``forward``."""
    return module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks


def has_module_hooks(module: nn.Module) -> bool:
    """Whether calling the module runs anything besides its ``forward``."""
    return any(module_hooks(module))


def is_parametrized(module: nn.Module) -> bool:
    """Whether ``torch.nn.utils.parametrize`` computes one of the module's parameters."""
    return "parametrizations" in module._modules


def original_class(module: nn.Module) -> type[nn.Module]:
    """The user's class of a module, also where autopar has put its own in front of it."""
    found: type[nn.Module] = getattr(type(module), "_autopar_original_class", type(module))
    return found


def replica_of_module(module: nn.Module) -> nn.Module:
    """A shallow copy without parameters that shares children, buffers and attributes with the original.

    Modules that keep parameters elsewhere as well (recurrent ones) copy that, too.
    """
    replica: nn.Module = module._replicate_for_data_parallel()
    return replica


def has_global_module_hooks() -> bool:
    """Whether somebody hooked all modules at once (``nn.modules.module.register_module_*_hook``)."""
    hooks = nn.modules.module
    return bool(
        hooks._global_forward_hooks
        or hooks._global_forward_pre_hooks
        or hooks._global_backward_hooks
        or hooks._global_backward_pre_hooks
    )


def has_running_statistics(module: nn.Module) -> bool:
    """Whether the module is a batch or instance norm of torch's, or a subclass: forward may write its buffers."""
    return isinstance(module, nn.modules.batchnorm._NormBase)
