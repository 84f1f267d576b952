"""The parts of a model's state, each with what it held: whether that changed, and how it is put back."""

from __future__ import annotations

import operator
import os
from collections import deque
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from autopar import compat

__all__ = ["Delta", "Empty", "Holder", "OpenFile", "Part", "Stream", "Value"]

_GONE = object()


class Delta:
    """A change of a model's attributes and containers, apart from the values of tensors.

    Args:
        parts: a container each, with what it holds (or, of a dict, the items that changed).
    """

    def __init__(self, parts: Sequence[tuple[Any, Any]]) -> None:
        self._parts = parts

    def __bool__(self) -> bool:
        return bool(self._parts)

    def without(self, other: Delta) -> Delta:
        """This change without what another one touches as well."""
        touched = {id(live): content for live, content in other._parts}
        parts = []
        for live, content in self._parts:
            again = touched.get(id(live))
            if again is None:
                parts.append((live, content))
            elif isinstance(live, MutableMapping) and (kept := {k: v for k, v in content.items() if k not in again}):
                parts.append((live, kept))
        return Delta(parts)

    def apply(self) -> None:
        """Makes the change."""
        for live, content in self._parts:
            if isinstance(live, MutableMapping):
                for key, value in content.items():
                    if value is _GONE:
                        live.pop(key, None)
                    else:
                        live[key] = value
            else:
                live.clear()
                live.update(content) if isinstance(live, set) else live.extend(content)


class Part(Protocol):
    """One thing that a forward could change.

    Attributes:
        owners: the modules that reach it, with the attribute.
    """

    owners: list[tuple[nn.Module, str]]

    def changes(self) -> list[str]:
        """The names of what is not as it was."""

    def restore(self, undone: list[tuple[Any, Any]]) -> list[str]:
        """Puts it back where it changed; a container's change is added to ``undone``. The same as ``changes``."""


@dataclass(slots=True)
class Holder(Part):
    """A container and what it held; an owner with the attribute ``""`` holds the container's keys themselves."""

    live: Any
    content: Any
    owners: list[tuple[nn.Module, str]]

    def changes(self) -> list[str]:
        """Keys, or items, that are other objects now."""
        live, content = self.live, self.content
        if _same_items(live, content):
            return []
        if not isinstance(live, MutableMapping):
            return ["items"]
        keys = dict.fromkeys([*live, *content])
        return [str(key) for key in keys if not _same(live.get(key, _GONE), content.get(key, _GONE))] or ["order"]

    def _difference(self) -> tuple[Any, Any]:
        live, content = self.live, self.content
        if not isinstance(live, MutableMapping):
            return live, live.copy()
        keys = [key for key in {**live, **content} if not _same(live.get(key, _GONE), content.get(key, _GONE))]
        return live, {key: _plain(live.get(key, _GONE)) for key in keys}

    def restore(self, undone: list[tuple[Any, Any]]) -> list[str]:
        """Lets it hold the same objects again."""
        live, content = self.live, self.content
        changed = self.changes()
        if not changed:
            return []
        undone.append(self._difference())
        live.clear()
        if isinstance(live, (list, deque)):
            live.extend(content)
        else:
            live.update(content)
        return changed


@dataclass(slots=True)
class Empty(Part):
    """Dicts of one module that hold nothing, as most do: its hooks, or parameters, buffers, modules."""

    live: list[dict[Any, Any]]
    owners: list[tuple[nn.Module, str]]

    def changes(self) -> list[str]:
        """Keys that are there now."""
        return [str(key) for registry in self.live for key in registry] if any(self.live) else []

    def restore(self, undone: list[tuple[Any, Any]]) -> list[str]:
        """Empties them again."""
        changed = self.changes()
        if changed:
            undone += [(registry, dict(registry)) for registry in self.live if registry]
            for registry in self.live:
                registry.clear()
        return changed


@dataclass(slots=True)
class Value(Part):
    """A tensor and the value it had."""

    live: torch.Tensor
    value: torch.Tensor
    version: int
    owners: list[tuple[nn.Module, str]]

    def changes(self) -> list[str]:
        """Whether it was written to; what went past the version counter shows in ``restore``."""
        return [] if compat.version(self.live) == self.version else ["value"]

    def restore(self, undone: list[tuple[Any, Any]]) -> list[str]:
        """Writes the value back, whatever the version counter says."""
        # Only where it changed: writing would make autograd distrust what it saved of it before.
        if self.live.shape != self.value.shape or self.live.dtype != self.value.dtype:
            self.live.data = self.value.clone()
        elif not torch.equal(self.live, self.value):
            with torch.no_grad():
                self.live.copy_(self.value)
        else:
            return []
        return ["value"]


@dataclass(slots=True)
class Stream(Part):
    """A generator of the model's own and the state it had."""

    live: torch.Generator
    state: torch.Tensor
    owners: list[tuple[nn.Module, str]]

    def changes(self) -> list[str]:
        """Whether numbers were drawn."""
        return [] if torch.equal(self.live.get_state(), self.state) else ["state"]

    def restore(self, undone: list[tuple[Any, Any]]) -> list[str]:
        """Goes back in its stream."""
        if not self.changes():
            return []
        self.live.set_state(self.state)
        return ["state"]


@dataclass(slots=True)
class OpenFile(Part):
    """A file that was open before, or a buffer like one, and how far it had been written."""

    live: Any
    position: int
    at_end: bool
    owners: list[tuple[nn.Module, str]]

    @classmethod
    def of(cls, file: Any) -> OpenFile | None:
        """None where it cannot be written to, or not be cut."""
        try:
            if not (file.writable() and file.seekable()):
                return None
            position = file.tell()
            end = file.seek(0, os.SEEK_END)
            file.seek(position)
        except (OSError, ValueError):  # such as closed
            return None
        return cls(file, position, position == end, [])

    def changes(self) -> list[str]:
        """Whether it was written to, read, or closed."""
        return [] if not self.live.closed and self.live.tell() == self.position else ["position"]

    def restore(self, undone: list[tuple[Any, Any]]) -> list[str]:
        """Cuts off what was added to its end."""
        changed = self.changes()
        if changed and not self.live.closed:
            self.live.seek(self.position)
            if self.at_end:
                self.live.truncate()
        return changed


def _same_items(one: Any, other: Any) -> bool:
    """Whether two containers of one type hold the same objects: identity, since tensors do not compare."""
    if len(one) != len(other):
        return False
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return False
        one, other = one.values(), other.values()
    if isinstance(one, set):
        return {id(item) for item in one} == {id(item) for item in other}
    return all(map(operator.is_, one, other)) or all(map(_same, one, other))


def _same(one: Any, other: Any) -> bool:
    """Whether two items are one object, or equal numbers or texts."""
    if one is other:
        return True
    kind = type(other)
    return kind in (int, float, bool, str) and isinstance(one, kind) and _plain(one) == other


def _plain(value: Any) -> Any:
    """A number that a forward has read from a shape, as a plain one."""
    return value.pin() if hasattr(type(value), "pin") else value
