"""Parameters and buffers that DistributedDataParallel is to leave alone, marked as torch marks them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from torch import nn

__all__ = ["data_parallel_params", "ignored_names", "set_ignored"]

_ON_MODULE = "_ddp_params_and_buffers_to_ignore"  # what libraries set on a module themselves
_ON_TENSOR = "_ddp_ignored"


def ignored_names(module: nn.Module) -> frozenset[str]:
    """Names of the parameters and buffers of a module that are to be left alone."""
    return frozenset(getattr(module, _ON_MODULE, ()))


def set_ignored(module: nn.Module, names: Collection[str]) -> None:
    """Marks parameters and buffers by their names in ``module``, before it is wrapped."""
    setattr(module, _ON_MODULE, names)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if name in names:
            setattr(tensor, _ON_TENSOR, True)


def data_parallel_params(module: nn.Module, named_params: bool) -> Iterator[Any]:
    """The parameters that are not marked, with their names where asked for."""
    for name, parameter in module.named_parameters():
        if not hasattr(parameter, _ON_TENSOR):
            yield (name, parameter) if named_params else parameter
