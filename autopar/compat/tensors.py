"""Memory and versions of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.utils.checkpoint
from torch import nn

__all__ = [
    "is_dense",
    "is_sole_owner",
    "mark_low_precision",
    "storage_references",
    "unflatten_like",
    "version",
]


def version(tensor: torch.Tensor) -> int:
    """How often the tensor was written to in place; inference tensors do not count."""
    return 0 if tensor.is_inference() else tensor._version


def unflatten_like(flat: torch.Tensor, like: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    """Views into ``flat``, one for each tensor of ``like``, made by one call into C++.

    The views carry no Python reference of ours, so autograd's AccumulateGrad may keep them as
    ``.grad`` without a copy.
    """
    views: Sequence[torch.Tensor] = torch._C._nn.unflatten_dense_tensors(flat, list(like))
    return views


def storage_references(tensor: torch.Tensor) -> int:
    """How many tensors (and other owners) share the tensor's storage."""
    count: int = torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)
    return count


def mark_low_precision(parameter: nn.Parameter, dtype: torch.dtype) -> None:
    """Gives a parameter what torch's DDP hangs on one that runs in another dtype (2.11-2.13).

    Outside of a forward the low-precision copy holds no values there, either.
    """
    marked: Any = parameter
    marked._fp_param = parameter.data
    marked._mp_param = torch.empty(0, dtype=dtype, device=parameter.device)


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether the tensor's elements fill its memory without gaps or overlaps, in any order of dims."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride != expected:
            return tensor.numel() == 0
        expected *= size
    return True


def is_sole_owner(tensor: torch.Tensor) -> bool:
    """Whether no other tensor shares the storage, and nothing in C++ holds this tensor.

    A tensor that is a view has its base for company: a linear layer's weight gradient is the
    transpose of a product that nobody else sees.
    """
    alone = 3 if tensor._is_view() else 2  # the tensor, the storage object asked, and the base
    return tensor._use_count() == 1 and storage_references(tensor) <= alone  # type: ignore[attr-defined]
