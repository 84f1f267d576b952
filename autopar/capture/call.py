"""A sample call: its tensors, which flow, and its constants, which a graph is pinned to."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from autopar import compat
from autopar.calls import is_constant

__all__ = ["Call", "fresh", "input_names"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a model, flattened.

    Attributes:
        spec: pytree structure of ``(args, kwargs)``.
        tensors: the tensor leaves, in order.
        constants: leaf index to value, for leaves that compare by value.
        foreign: the other leaves: objects that a graph cannot be pinned to.
    """

    spec: Any
    tensors: tuple[torch.Tensor, ...]
    constants: Mapping[int, Any]
    foreign: tuple[Any, ...]

    @classmethod
    def of(cls, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
        """The call ``model(*args, **kwargs)`` on copies of its tensors.

        Copies, because a forward may write to its inputs, and because a program outlives the call:
        the user's own tensors would keep the autograd graph behind them alive.
        """
        leaves, spec = compat.tree_flatten((tuple(args), dict(kwargs)))
        copies: dict[int, torch.Tensor] = {}
        for leaf in leaves:
            if isinstance(leaf, torch.Tensor) and id(leaf) not in copies:
                copies[id(leaf)] = leaf.detach().clone().requires_grad_(leaf.requires_grad)
        return cls(
            spec=spec,
            tensors=tuple(copies[id(leaf)] for leaf in leaves if isinstance(leaf, torch.Tensor)),
            constants={index: leaf for index, leaf in enumerate(leaves) if is_constant(leaf)},
            foreign=tuple(leaf for leaf in leaves if not isinstance(leaf, torch.Tensor) and not is_constant(leaf)),
        )

    def fill(self, leaves: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """``(args, kwargs)`` with ``leaves`` in place of the tensors; needs a call without foreign leaves."""
        assert not self.foreign, "objects are not kept"
        flowing = iter(leaves)
        total = len(leaves) + len(self.constants)
        filled = [self.constants[i] if i in self.constants else next(flowing) for i in range(total)]
        args, kwargs = compat.tree_unflatten(filled, self.spec)
        return args, kwargs


def fresh(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Copies for one run that may be written to; what is one tensor before is one tensor after."""
    copies: dict[int, torch.Tensor] = {}
    for tensor in tensors:
        if id(tensor) not in copies:
            copy = tensor.detach().clone().requires_grad_(tensor.requires_grad)
            # A leaf that requires a gradient must not be written to; the user's tensor may be no leaf.
            copies[id(tensor)] = copy.clone() if copy.requires_grad else copy
    return [copies[id(tensor)] for tensor in tensors]


def input_names(forward: Callable[..., Any], call: Call) -> list[str]:
    """Names for the tensor leaves: the forward's argument names, with a number for nested leaves."""
    total = len(call.tensors) + len(call.constants)
    args, kwargs = compat.tree_unflatten(list(range(total)), call.spec)
    try:
        bound = inspect.signature(forward).bind(None, *args, **kwargs)
        by_argument = list(itertools.islice(bound.arguments.items(), 1, None))
    except (TypeError, ValueError):
        by_argument = [(f"arg{index}", value) for index, value in enumerate(args)] + list(kwargs.items())
    names: dict[int, str] = {}
    for argument, tree in by_argument:
        leaves, _ = compat.tree_flatten(tree)
        for number, leaf in enumerate(leaves):
            names[leaf] = argument if len(leaves) == 1 else f"{argument}_{number}"
    return [names[index] for index in range(total) if index not in call.constants]
