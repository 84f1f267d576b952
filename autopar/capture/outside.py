"""What a forward may change outside of its model: the names of its own source file, and what they stand for."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from torch import nn

from autopar.capture.source import is_users

__all__ = ["Binding", "bindings"]

_GONE = object()


@dataclass(slots=True)
class Binding:
    """A global name that methods of a module mention, and what it stood for.

    Attributes:
        namespace: the globals that it is in.
        name: the name.
        value: what it stood for.
        owners: the modules whose methods mention it, with the name.
    """

    namespace: dict[str, Any]
    name: str
    value: Any
    owners: list[tuple[nn.Module, str]]

    def changes(self) -> list[str]:
        """Whether it stands for something else now."""
        return [] if self.namespace.get(self.name, _GONE) is self.value else ["value"]

    def restore(self, undone: list[tuple[Any, Any]]) -> list[str]:
        """Lets it stand for the same again."""
        if not self.changes():
            return []
        undone.append((self.namespace, {self.name: self.namespace.get(self.name)}))
        self.namespace[self.name] = self.value
        return ["value"]


def bindings(module: nn.Module) -> Iterator[tuple[dict[str, Any], str]]:
    """Globals, and names in them, that methods of the module's class mention and that a call could change."""
    cls: Any = type(module)
    for namespace, name in _mentioned(cls):
        if name in namespace and not _is_definition(namespace[name]):
            yield namespace, name


@functools.lru_cache(maxsize=4_096)
def _mentioned(cls: Any) -> list[tuple[dict[str, Any], str]]:
    found: dict[tuple[int, str], tuple[dict[str, Any], str]] = {}
    for base in cls.__mro__:
        for function in vars(base).values():
            if isinstance(function, FunctionType) and is_users(function.__code__.co_filename):
                namespace = function.__globals__
                found |= {(id(namespace), name): (namespace, name) for name in _names(function.__code__)}
    return [(namespace, name) for namespace, name in found.values() if not name.startswith("__")]


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_definition(value: Any) -> bool:
    """A function, class or module: what a name stands for once and for all."""
    return callable(value) or type(value).__name__ == "module"
