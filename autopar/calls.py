"""Which calls a captured program is exact for: what it can be pinned to, and whether a call is of its kind."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from autopar import compat
from autopar.program import Program

__all__ = ["Entry", "Facts", "call_key", "flags", "is_constant"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, enum.Enum, slice)


def is_constant(value: Any) -> bool:
    """Whether a value can be pinned: it compares by value and holds no tensor."""
    return isinstance(value, _PLAIN) or value is Ellipsis


def flags(modes: Mapping[str, bool]) -> dict[tuple[str, str], bool]:
    """Train/eval flags by path of the module, as ``Facts`` takes them."""
    return {(path, "training"): flag for path, flag in modes.items()}


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
    """A compiled program with what it is exact for.

    Attributes:
        key: the kind of call.
        facts: what of the modules it has baked in.
        run: runs it.
        captured: the program as it was captured; None for a forward that runs as it is.
    """

    key: Any
    facts: Facts
    run: Callable[[tuple[Any, ...], dict[str, Any]], Any]
    captured: Program | None = None

    def fits(self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool | None:
        """Whether it may serve a call, with the modules as they are now; None where a recording has to tell."""
        if self.key != key or not self.facts.hold():
            return False
        if self.captured is None or self.captured.guards.none:
            return True
        inputs = self.captured.signature.flatten(args, kwargs)
        guards = self.captured.guards
        sizes = guards.sizes_hold(inputs)  # first, because questions are for these sizes
        return guards.values_hold(inputs) if sizes else sizes

    def confirm(self, program: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether another recording shows the same graph, so that this one serves calls of those sizes, too."""
        assert self.captured is not None
        if self.captured.digest() != program.digest():
            return False
        self.captured.guards.confirm(self.captured.signature.flatten(args, kwargs))
        return True


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
        _sharing(leaves),
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_enabled("cuda"),
    )


def _sharing(leaves: Sequence[Any]) -> Sequence[int] | None:
    """Which arguments are the same tensor, where any are: a model may ask, and a graph has one input for them."""
    identities = [id(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor)]
    return None if len(set(identities)) == len(identities) else [identities.index(one) for one in identities]


def _leaf_key(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        return (leaf.dtype, leaf.device.type, leaf.dim(), leaf.layout, leaf.requires_grad)
    return (type(leaf), leaf) if is_constant(leaf) else type(leaf)
