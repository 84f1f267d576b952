"""What a forward may change outside of its model: names of its source file, of modules it uses, and of classes."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Any

from torch import nn

from autopar.capture.source import is_users

__all__ = ["Binding", "bindings"]

_GONE = object()


@dataclass(slots=True)
class Binding:
    """A name outside of the model that methods of a module mention, and what it stood for.

    Attributes:
        namespace: the globals that it is in, or the attributes of a class.
        name: the name.
        value: what it stood for.
        owners: the modules whose methods mention it, with the name.
    """

    namespace: MutableMapping[str, Any]
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


class ClassAttributes(MutableMapping[str, Any]):
    """What a class itself holds, in a form that can be written to."""

    def __init__(self, cls: type) -> None:
        self._cls = cls

    def __getitem__(self, name: str) -> Any:
        return vars(self._cls)[name]

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self._cls, name, value)

    def __delitem__(self, name: str) -> None:
        delattr(self._cls, name)

    def __iter__(self) -> Iterator[str]:
        return iter(vars(self._cls))

    def __len__(self) -> int:
        return len(vars(self._cls))


def bindings(module: nn.Module) -> Iterator[tuple[MutableMapping[str, Any], str]]:
    """Names that methods of the module's class mention and that a call could change, with where they are."""
    cls: Any = type(module)
    for namespace, name in _mentioned(cls):
        if name in namespace and not _is_definition(namespace[name]):
            yield namespace, name


@functools.lru_cache(maxsize=4_096)
def _mentioned(cls: Any) -> list[tuple[MutableMapping[str, Any], str]]:
    found: dict[tuple[int, str], tuple[MutableMapping[str, Any], str]] = {}
    for base in cls.__mro__:
        for function in vars(base).values():
            if isinstance(function, FunctionType) and is_users(function.__code__.co_filename):
                names = {name for name in _names(function.__code__) if not name.startswith("__")}
                for namespace in _namespaces(function, base, names):
                    found |= {(id(namespace), name): (namespace, name) for name in names if name in namespace}
    return list(found.values())


def _namespaces(function: FunctionType, owner: type, names: set[str]) -> Iterator[MutableMapping[str, Any]]:
    """Where a method may find a name: its globals, its class, and the modules and classes that it mentions."""
    yield function.__globals__
    yield _attributes_of(owner)
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, ModuleType):
            if is_users(getattr(value, "__file__", None) or "<built-in>"):
                yield vars(value)
        elif isinstance(value, type) and is_users(_file_of(value)):
            yield _attributes_of(value)


@functools.cache
def _attributes_of(cls: type) -> ClassAttributes:
    return ClassAttributes(cls)


def _file_of(cls: type) -> str:
    return getattr(sys.modules.get(cls.__module__), "__file__", None) or "<unknown>"


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_definition(value: Any) -> bool:
    """A function, class or module: what a name stands for once and for all."""
    return callable(value) or type(value).__name__ == "module"
