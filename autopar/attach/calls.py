"""Which calls a compiled program is exact for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from autopar import compat
from autopar.capture.inputs import is_constant
from autopar.runtime.executor import Runnable

__all__ = ["Entry", "Facts", "call_key"]


class Facts:
    """Attributes of modules whose values a program has baked in, compared at every call.

    Args:
        model: the owner.
        values: path of a module and name of its attribute, to the value.
    """

    def __init__(self, model: nn.Module, values: Mapping[tuple[str, str], Any]) -> None:
        self._places = [(vars(model.get_submodule(path)), name) for path, name in values]
        self._values = list(values.values())

    def hold(self) -> bool:
        """Whether all of them are as they were."""
        return [holder.get(name) for holder, name in self._places] == self._values


@dataclass(frozen=True, slots=True)
class Entry:
    """A compiled program with what it is exact for."""

    key: Any
    facts: Facts
    run: Runnable

    def fits(self, key: Any) -> bool:
        """Whether it may serve a call of this key, with the modules as they are now."""
        return bool(self.key == key) and self.facts.hold()


def call_key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a graph is specialised on: structure, constants, and kinds of tensors; never sizes."""
    if not kwargs and all(type(arg) is torch.Tensor for arg in args):
        spec: Any = len(args)
        leaves: Sequence[Any] = args
    else:
        leaves, spec = compat.tree_flatten((args, kwargs))
    return (
        spec,
        [_leaf_key(leaf) for leaf in leaves],
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_enabled("cuda"),
    )


def _leaf_key(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        return (leaf.dtype, leaf.device.type, leaf.dim(), leaf.layout)
    return (type(leaf), leaf) if is_constant(leaf) else type(leaf)
