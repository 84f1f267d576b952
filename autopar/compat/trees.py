"""Nested structures (``torch.utils._pytree``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.utils import _pytree as pytree

__all__ = [
    "tree_flatten",
    "tree_map",
    "tree_unflatten",
]


def tree_flatten(tree: Any) -> tuple[list[Any], Any]:
    """Leaves of a nested structure and its spec (2.11-2.13: ``torch.utils._pytree``)."""
    leaves, spec = pytree.tree_flatten(tree)
    return leaves, spec


def tree_unflatten(leaves: Sequence[Any], spec: Any) -> Any:
    """The nested structure again, from its leaves and spec."""
    return pytree.tree_unflatten(list(leaves), spec)


def tree_map(function: Callable[[Any], Any], tree: Any) -> Any:
    """The structure with ``function`` applied to every leaf."""
    return pytree.tree_map(function, tree)
