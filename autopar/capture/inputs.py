"""What of a call's arguments a graph can be pinned to."""

from __future__ import annotations

import enum
from typing import Any

import torch

__all__ = ["is_constant"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, enum.Enum, slice)


def is_constant(value: Any) -> bool:
    """Whether a value can be pinned: it compares by value and holds no tensor."""
    return isinstance(value, _PLAIN) or value is Ellipsis
