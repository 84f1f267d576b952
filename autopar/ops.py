"""The functions that stand in a transformed program as nodes of their own.

Each is an ordinary function that runs without autopar's runtime: outside a running strategy
``sync_gradients`` hands its parameters through, so a printed program is a program. The runtime says
what a node means while it executes one, through ``executing``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeAlias
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import nn

__all__ = [
    "Statistics",
    "Synchronizer",
    "alone",
    "batch_norm",
    "executing",
    "share_statistics",
    "shares_statistics",
    "sync_batch_norm",
    "sync_gradients",
    "unshare_statistics",
]


class Synchronizer(Protocol):
    """What a runtime offers to ``sync_gradients`` while it executes a program."""

    def sync(self, bucket: int, parameters: Sequence[torch.Tensor], compression: str) -> Sequence[torch.Tensor]:
        """The parameters again, such that their gradients are reduced together."""
        ...


class _Active(threading.local):
    synchronizer: Synchronizer | None = None


_active = _Active()

# Called with module, input, weight, bias, and the weight of this batch in the running statistics.
Statistics: TypeAlias = Callable[
    [nn.Module, torch.Tensor, "torch.Tensor | None", "torch.Tensor | None", float], torch.Tensor
]


class _Sharing:
    """Of the whole process, not of a thread: autograd's threads run forwards, too, of checkpoints."""

    def __init__(self) -> None:
        self.statistics: WeakKeyDictionary[nn.Module, Statistics | None] = WeakKeyDictionary()
        self.alone = False


_sharing = _Sharing()


@contextmanager
def executing(synchronizer: Synchronizer | None) -> Iterator[None]:
    """Within this block, in this thread, ``sync_gradients`` goes through ``synchronizer``."""
    before = _active.synchronizer
    _active.synchronizer = synchronizer
    try:
        yield
    finally:
        _active.synchronizer = before


def sync_gradients(*parameters: torch.Tensor, bucket: int, compression: str = "") -> Sequence[torch.Tensor]:
    """Identity in forward; in backward the gradients are all-reduced (mean) in one message.

    Args:
        parameters: the bucket's parameters, in the order in which their gradients become ready.
        bucket: index of the bucket in the plan.
        compression: how the plan says that the bucket is compressed, such as ``"bf16"``.

    Returns:
        The same parameters, to be used in place of the arguments.
    """
    synchronizer = _active.synchronizer
    return parameters if synchronizer is None else synchronizer.sync(bucket, parameters, compression)


def batch_norm(
    module: nn.Module, input: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None
) -> torch.Tensor:
    """Batch normalisation with the affine parameters as inputs and the statistics in the module.

    Reads the module's train/eval flag when it runs, and updates its running statistics as
    ``nn.BatchNorm1d``, ``2d`` and ``3d`` do (Ioffe and Szegedy, 2015).

    Args:
        module: the batch norm module, owner of ``running_mean``, ``running_var`` and
            ``num_batches_tracked``.
        input: tensor of shape (N, C, ...).
        weight, bias: tensors of shape (C,), or None.
    """
    return _normalised(module, input, weight, bias, any_batch=False)


def sync_batch_norm(
    module: nn.Module, input: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None
) -> torch.Tensor:
    """Batch normalisation by the statistics of all ranks; where nobody shares them, and in eval mode, ``batch_norm``.

    Args:
        module, input, weight, bias: see ``batch_norm``.
    """
    shared = _sharing.statistics.get(module) if module.training else None
    if shared is None:
        return batch_norm(module, input, weight, bias)
    if _sharing.alone:
        return _normalised(module, input, weight, bias, any_batch=True)
    return shared(module, input, weight, bias, _counted(module, input))


def share_statistics(modules: Iterable[nn.Module], shared: Statistics | None) -> None:
    """Says what ``sync_batch_norm`` means for these modules in train mode; None is ``batch_norm``."""
    for module in modules:
        _sharing.statistics[module] = shared


def unshare_statistics(modules: Iterable[nn.Module]) -> None:
    """Undoes ``share_statistics``."""
    for module in modules:
        _sharing.statistics.pop(module, None)


def shares_statistics(module: nn.Module) -> bool:
    """Whether ``share_statistics`` was told of the module."""
    return module in _sharing.statistics


@contextmanager
def alone() -> Iterator[None]:
    """Within this block, in all threads, ``sync_batch_norm`` asks nobody: a model runs on this rank alone.

    It is ``batch_norm`` then, but takes one value a channel, too, which can be a rank's part of a batch.
    """
    before, _sharing.alone = _sharing.alone, True
    try:
        yield
    finally:
        _sharing.alone = before


def _normalised(
    module: nn.Module, input: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, *, any_batch: bool
) -> torch.Tensor:
    """``F.batch_norm`` on the module's statistics; for ``any_batch`` without its check of the values a channel."""
    factor = _counted(module, input)
    assert isinstance(module, nn.modules.batchnorm._BatchNorm)
    tracked = not module.training or module.track_running_stats
    mean = module.running_mean if tracked else None
    variance = module.running_var if tracked else None
    from_batch = module.training or (module.running_mean is None and module.running_var is None)
    if any_batch:
        fast = torch.backends.cudnn.enabled
        return torch.batch_norm(input, weight, bias, mean, variance, from_batch, factor, module.eps, fast)
    return F.batch_norm(input, mean, variance, weight, bias, from_batch, factor, module.eps)


def _counted(module: nn.Module, input: torch.Tensor) -> float:
    """Checks the input, counts the batch, and gives the weight that it has in the running statistics."""
    assert isinstance(module, nn.modules.batchnorm._BatchNorm)
    module._check_input_dim(input)
    factor = 0.0 if module.momentum is None else module.momentum
    if module.training and module.track_running_stats and module.num_batches_tracked is not None:
        module.num_batches_tracked.add_(1)
        if module.momentum is None:
            factor = 1.0 / float(module.num_batches_tracked)
    return factor
