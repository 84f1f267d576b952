"""The imports of a printed file, collected while its statements are made."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from autopar.emit.layout import LINE_LENGTH

__all__ = ["Imports"]

_ALIASES = {"torch.nn.functional": "F", "torch.distributed": "dist"}


class Imports:
    """Hands out local names for modules and functions, and prints the import statements.

    A local name never equals one of ``taken`` (the arguments of the printed function, which would
    hide it).
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._modules: dict[str, str] = {}
        self._members: dict[tuple[str, str], str] = {}
        self._own: dict[str, str] = {}

    @property
    def names(self) -> frozenset[str]:
        """Every local name that is in use."""
        roots = {name.partition(".")[0] for name in self._modules.values()}
        return frozenset(roots | set(self._members.values()) | set(self._own.values()))

    @property
    def own(self) -> dict[str, str]:
        """Functions and classes of the user's own model file: name there to local name."""
        return dict(self._own)

    def module(self, name: str) -> str:
        """The expression for a module, such as ``F`` for ``torch.nn.functional``."""
        package, _, last = name.rpartition(".")
        if package == "autopar":
            return self.member(package, last)
        if name not in self._modules:
            alias = _ALIASES.get(name, name)
            self._modules[name] = alias if alias.partition(".")[0] not in self._taken else self._free(last)
        return self._modules[name]

    def member(self, module: str, name: str) -> str:
        """The local name of ``from module import name``."""
        key = (module, name)
        if key not in self._members:
            self._members[key] = self._free(name)
        return self._members[key]

    def from_model_file(self, name: str) -> str:
        """The local name of something that the user's model file defines."""
        if name not in self._own:
            self._own[name] = self._free(name)
        return self._own[name]

    def lines(self) -> list[str]:
        """The import statements, sorted as ruff's isort rules want them: standard library first."""
        sections: list[list[str]] = []
        for standard in (True, False):
            chosen = [name for name in self._modules if (_root(name) in sys.stdlib_module_names) is standard]
            plain = [_import(name, self._modules[name]) for name in sorted(chosen, key=str.lower)]
            by_module: dict[str, list[tuple[str, str]]] = {}
            for (module, name), local in self._members.items():
                if (_root(module) in sys.stdlib_module_names) is standard:
                    by_module.setdefault(module, []).append((name, local))
            members = [line for module in sorted(by_module, key=str.lower) for line in _from(module, by_module[module])]
            if plain or members:
                sections.append([*plain, *members])
        return [line for section in sections for line in ["", *section]][1:]

    def _free(self, name: str) -> str:
        local, number = name, 0
        while local in self._taken or local in self.names:
            number += 1
            local = f"{name}_{number}"
        return local


def _root(module: str) -> str:
    return module.partition(".")[0]


def _import(module: str, local: str) -> str:
    return f"import {module}" if module == local else f"import {module} as {local}"


def _from(module: str, pairs: list[tuple[str, str]]) -> list[str]:
    names = [name if name == local else f"{name} as {local}" for name, local in sorted(pairs, key=_kind)]
    line = f"from {module} import {', '.join(names)}"
    return [line] if len(line) <= LINE_LENGTH else [f"from {module} import (", *(f"    {n}," for n in names), ")"]


def _kind(pair: tuple[str, str]) -> tuple[int, str]:
    """Constants, then classes, then functions: isort's order within one statement."""
    name = pair[0]
    return (0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2, name)
