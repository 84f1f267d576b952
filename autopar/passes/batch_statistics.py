"""Finds the modules whose result depends on which samples stand in a batch together."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["batch_statistics"]

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


def batch_statistics(model: nn.Module) -> list[str]:
    """The modules that use, or keep, statistics of the whole batch in their present mode.

    A batch norm normalises by them in train mode, and without running statistics in any mode. An
    instance norm normalises each sample by itself, but keeps running statistics where asked to.
    Classes that are not torch's are known by a buffer ``running_mean``, but for frozen ones, which
    keep such a buffer and change it never.

    Returns:
        Path and class of each, such as ``"layer1.bn (BatchNorm2d)"``, in the order of registration.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        >>> batch_statistics(model), batch_statistics(model.eval())
        (['1 (BatchNorm1d)'], [])
    """
    return [
        f"{path or 'the model'} ({type(module).__name__})"
        for path, module in model.named_modules()
        if _depends_on_batch(module)
    ]


def _depends_on_batch(module: nn.Module) -> bool:
    if isinstance(module, _BATCH_NORMS):
        return module.training or module.running_mean is None
    if isinstance(module, _INSTANCE_NORMS):
        return module.training and module.track_running_stats
    return (
        module.training
        and isinstance(getattr(module, "running_mean", None), torch.Tensor)
        and not type(module).__name__.startswith("Frozen")
    )
