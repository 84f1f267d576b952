"""``mixed_precision`` of ``DistributedDataParallel``: forward and backward in a low precision, parameters in full."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from autopar import compat

__all__ = ["LowPrecision"]


class LowPrecision(nn.Module):
    """Runs a module with its parameters and inputs cast to another dtype.

    The cast is an operation of the forward, so gradients come back in the parameters' own dtype.
    Buffers are cast for good, as torch does. Only floating-point tensors are cast.

    Args:
        module: the module to run.
        config: torch's ``_MixedPrecision``, of which ``reduce_dtype`` is for those who reduce.
        ignored: names of parameters and buffers to leave as they are.
    """

    def __init__(self, module: nn.Module, config: Any, ignored: Collection[str]) -> None:
        super().__init__()
        self.module, self._dtype = module, config.param_dtype
        self._names = [name for name, p in module.named_parameters() if name not in ignored and p.is_floating_point()]
        for name in self._names if self._dtype is not None else ():
            compat.mark_low_precision(module.get_parameter(name), self._dtype)
        for name, buffer in list(module.named_buffers()):
            if config.buffer_dtype is not None and name not in ignored and buffer.is_floating_point():
                path, _, key = name.rpartition(".")
                setattr(module.get_submodule(path), key, buffer.to(config.buffer_dtype))

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """The module's forward in low precision."""
        if self._dtype is None:
            return self.module(*inputs, **kwargs)
        low = {name: self.module.get_parameter(name).to(self._dtype) for name in self._names}
        inputs, kwargs = compat.tree_map(self._cast, (inputs, kwargs))
        return torch.func.functional_call(self.module, low, inputs, kwargs)

    def _cast(self, leaf: Any) -> Any:
        return leaf.to(self._dtype) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf
