"""Nested structures with tensors in them, taken apart and put together again.

Containers are torch's pytrees. What pytree knows nothing of, an ordinary object such as a dataclass
or a key-value cache, is taken apart by its attributes where tensors are in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn

from autopar import compat

__all__ = ["Structure", "rebuild", "take_apart"]

_DEPTH = 6
_NO_OBJECTS = (
    torch.Tensor, nn.Module, type, FunctionType, MethodType, BuiltinFunctionType, ModuleType,
    str, bytes, int, float, complex, torch.dtype, torch.device,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Structure:
    """Where the leaves of a value are.

    Attributes:
        spec: pytree structure, in which objects are leaves.
        objects: index of such a leaf to the object's class and the structure of its attributes.
    """

    spec: Any
    objects: Mapping[int, tuple[type, Structure]] = field(default_factory=dict)

    @property
    def num_leaves(self) -> int:
        """How many leaves there are, those within objects included."""
        inner = sum(structure.num_leaves - 1 for _, structure in self.objects.values())
        count: int = self.spec.num_leaves
        return count + inner

    def unflatten(self, leaves: Sequence[Any]) -> Any:
        """The value again; objects are new ones of the same class."""
        if not self.objects:
            return compat.tree_unflatten(leaves, self.spec)
        return compat.tree_unflatten(list(self._members(iter(leaves))), self.spec)

    def _members(self, leaves: Iterator[Any]) -> Iterator[Any]:
        for index in range(self.spec.num_leaves):
            known = self.objects.get(index)
            if known is None:
                yield next(leaves)
            else:
                cls, inner = known
                yield rebuild(cls, inner.unflatten([next(leaves) for _ in range(inner.num_leaves)]))


def take_apart(value: Any) -> tuple[list[Any], Structure]:
    """Leaves of a value and its structure.

    Returns:
        Tensors, plain values and whatever holds no tensor, in order; and where they are.
    """
    return _take_apart(value, _DEPTH)


def rebuild(cls: type, attributes: Mapping[str, Any]) -> Any:
    """An object of ``cls`` with these attributes; no constructor runs."""
    made: Any = object.__new__(cls)
    vars(made).update(attributes)
    return made


def _take_apart(value: Any, depth: int) -> tuple[list[Any], Structure]:
    members, spec = compat.tree_flatten(value)
    leaves: list[Any] = []
    objects: dict[int, tuple[type, Structure]] = {}
    for index, member in enumerate(members):
        if depth and _is_object(member):
            inner, structure = _take_apart(dict(vars(member)), depth - 1)
            if any(isinstance(leaf, torch.Tensor) for leaf in inner):
                leaves += inner
                objects[index] = (type(member), structure)
                continue
        leaves.append(member)
    return leaves, Structure(spec, objects)


def _is_object(value: Any) -> bool:
    """Whether its attributes are all that there is of it."""
    cls = type(value)
    return (
        not isinstance(value, _NO_OBJECTS)
        and hasattr(value, "__dict__")
        and getattr(cls, "__reduce_ex__") is object.__reduce_ex__  # noqa: B009
        and not any(vars(base).get("__slots__") for base in cls.__mro__)
    )
