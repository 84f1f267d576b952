"""Reads a module's parameters and buffers by name, fast, and notices when the module was rebuilt."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

import torch
from torch import nn

__all__ = ["ModelGuard", "StateSlots"]

_requires_grad = attrgetter("requires_grad")


class StateSlots:
    """Live views of named state: what is read is what the module holds now.

    Args:
        model: the owner.
        names: dotted names of parameters, buffers or tensor attributes.
    """

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        self._slots = [_slot(model, name) for name in names]

    def read(self) -> list[torch.Tensor]:
        """The tensors, in the order of the names."""
        return [holder[key] for holder, key in self._slots]


class ModelGuard:
    """Whether a model still has the modules, parameters and trainable flags that it was compiled with."""

    def __init__(self, model: nn.Module) -> None:
        self._children: list[tuple[dict[str, Any], str, Any]] = []
        self._parameters: list[nn.Parameter] = []
        for module in model.modules():
            for holder in (module._modules, module._parameters):
                self._children += [(holder, key, value) for key, value in holder.items()]
            self._parameters += [p for p in module._parameters.values() if p is not None]
        self._sizes = [(holder, len(holder)) for m in model.modules() for holder in (m._modules, m._parameters)]
        self._trainable = list(map(_requires_grad, self._parameters))

    def holds(self) -> bool:
        """True when nothing was replaced, added, removed, frozen or unfrozen."""
        return (
            all([len(holder) == size for holder, size in self._sizes])
            and all([holder[key] is value for holder, key, value in self._children])
            and list(map(_requires_grad, self._parameters)) == self._trainable
        )


def _slot(model: nn.Module, name: str) -> tuple[dict[str, Any], str]:
    path, _, key = name.rpartition(".")
    owner = model.get_submodule(path)
    for holder in (owner._parameters, owner._buffers, vars(owner)):
        if key in holder:
            return holder, key
    raise AttributeError(f"{type(model).__name__} has no tensor {name!r}")
