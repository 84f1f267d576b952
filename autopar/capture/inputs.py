"""Splits a call's arguments into tensors, which flow, and constants, which a graph is pinned to."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from autopar import compat

__all__ = ["is_constant", "split"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, enum.Enum, slice)


def is_constant(value: Any) -> bool:
    """Whether a value can be pinned: it compares by value and holds no tensor."""
    return isinstance(value, _PLAIN) or value is Ellipsis


def split(
    args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Any, list[Any], dict[int, Any], list[tuple[int, Any]]]:
    """Flattens a call.

    Returns:
        The pytree spec of ``(args, kwargs)``, the tensor leaves in order, the constant leaves by
        leaf index, and the leaves that are neither (objects that a graph cannot be pinned to).
    """
    leaves, spec = compat.tree_flatten((tuple(args), dict(kwargs)))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    constants = {index: leaf for index, leaf in enumerate(leaves) if is_constant(leaf)}
    foreign = [
        (index, leaf)
        for index, leaf in enumerate(leaves)
        if not isinstance(leaf, torch.Tensor) and index not in constants
    ]
    return spec, tensors, constants, foreign
