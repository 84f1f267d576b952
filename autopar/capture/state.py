"""Leaves a user's model as it was: tensors, Python attributes, gradients and random streams."""

from __future__ import annotations

import functools
import operator
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn

from autopar import compat
from autopar.capture.outside import Binding, bindings

__all__ = ["Delta", "ModelState", "RandomStreams", "preserved"]


@contextmanager
def preserved(model: nn.Module, *, seed: int | None = None) -> Iterator[None]:
    """Runs the block and then puts the model's state and all random streams back.

    Parameters, buffers and other tensors of the model get their values back, attributes and
    containers their objects, and every generator (Python's, NumPy's, torch's on all devices) its state.

    Args:
        model: whose state to keep.
        seed: seed for the block's own random streams; None lets it go on with the current ones.
    """
    state, streams = ModelState(model), RandomStreams()
    try:
        if seed is not None:
            streams.seed(seed)
        yield
    finally:
        streams.restore()
        state.restore()


class ModelState:
    """All that a forward could change of a module tree, to be compared with and put back.

    Covers every module's attributes, lists, dicts, sets and plain objects that hang on them (two
    objects deep: a counter in a statistics object is state, a training framework behind a
    back-reference is not ours to walk), and the value of every tensor found on the way, parameters
    included; and the globals that the modules' own methods mention. Costs one copy of the model's tensors.

    Attributes:
        modules: every module once, by path.
        trainable: the parameters that want a gradient, by name.
        undone: the change of attributes and containers that the last ``restore`` put back.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules = dict(model.named_modules())
        self.trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._holders: dict[int, _Holder] = {}
        self._values: dict[int, _Value | _Stream] = {}
        self._empty: dict[int, _Empty] = {}
        self._bindings: dict[tuple[int, str], Binding] = {}
        self.undone = Delta([])
        self._contents: tuple[list[Any], ...] | None = None
        self._visited: set[int] = set()
        self._by_owner: dict[nn.Module, list[tuple[str, _Holder | _Value | _Stream | _Empty | Binding]]] | None = None
        self._visited.update(map(id, self.modules.values()))  # each is its own owner, whoever else refers to it
        for module in self.modules.values():
            self._module(module, module)
            self._outside(module)
        for tensor in (*model.parameters(), *model.buffers()):  # those of a ScriptModule hang on no attribute
            if id(tensor) not in self._values:
                self._value(tensor, model, "state", depth=0)

    def buffers(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The buffers that the modules have now, by name; one with several names comes several times."""
        for path, module in self.modules.items():
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    yield f"{path}.{name}" if path else name, buffer

    def restore(self) -> dict[nn.Module, list[str]]:
        """Puts back what changed, and only that; ``undone`` can make the change again.

        Returns:
            Modules with the names of those of their attributes that were not as they had been.
        """
        found: dict[nn.Module, set[str]] = {}
        undone: list[tuple[Any, Any]] = []
        holders = () if self._untouched() else self._holders.values()
        for part in (*holders, *self._values.values(), *self._empty.values(), *self._bindings.values()):
            changes = part.restore(undone)
            for changed in changes:
                for module, attribute in part.owners:
                    found.setdefault(module, set()).add(attribute or changed)
        self.undone = Delta(undone)
        return {module: sorted(names) for module, names in found.items()}

    def _untouched(self) -> bool:
        """Whether every container holds the objects that it held: in C's loops, since nearly always it is so."""
        if self._contents is None:
            parts = self._holders.values()
            self._contents = tuple([item for part in parts for item in look(part.content)] for look in _LOOKS)
        live = [part.live for part in self._holders.values()]
        sizes = list(map(len, live)) == [len(part.content) for part in self._holders.values()]
        return sizes and all(
            all(map(operator.is_, chain.from_iterable(map(look, live)), before))
            for look, before in zip(_LOOKS, self._contents, strict=True)
        )

    def changes_of(self, module: nn.Module) -> dict[str, bool]:
        """What of this module alone is not as it was; for each attribute, whether a tensor was written to in place."""
        if self._by_owner is None:
            self._by_owner = {}
            parts = (*self._holders.values(), *self._values.values(), *self._empty.values())
            for part in (*parts, *self._bindings.values()):
                for owner, attribute in part.owners:
                    self._by_owner.setdefault(owner, []).append((attribute, part))
        found: dict[str, bool] = {}
        for attribute, part in self._by_owner.get(module, ()):
            for changed in part.changes():
                found[attribute or changed] = isinstance(part, _Value)
        return found

    def _module(self, module: nn.Module, owner: nn.Module) -> None:
        attributes = vars(module)
        hooks: list[dict[Any, Any]] = []
        members: list[dict[Any, Any]] = []
        self._empty[id(hooks)] = _Empty(hooks, [(owner, "hooks")])
        self._empty[id(members)] = _Empty(members, [(owner, "")])
        self._holders[id(attributes)] = _Holder(attributes, attributes.copy(), [(owner, "")])
        for name, value in attributes.items():
            if name in _NAMESPACES and isinstance(value, dict):  # a ScriptModule's are no dicts
                if value:
                    self._holders[id(value)] = _Holder(value, value.copy(), [(owner, "")])
                else:
                    members.append(value)
                for key, member in value.items():
                    self._value(member, owner, key, depth=0)
            elif name in _REGISTRIES and isinstance(value, dict):  # a forward may install hooks when it first runs
                if value:
                    self._holders[id(value)] = _Holder(value, value.copy(), [(owner, name)])
                else:
                    hooks.append(value)
            elif type(value) not in _ATOMS:
                self._value(value, owner, name, depth=0)

    def _outside(self, module: nn.Module) -> None:
        for namespace, name in bindings(module):
            known = self._bindings.get((id(namespace), name))
            if known is None:
                known = self._bindings[id(namespace), name] = Binding(namespace, name, namespace[name], [])
            known.owners.append((module, name))
            # Not what is in it: a registry's own class may build what is asked for, or hold all that a library has.
            value = vars(known.value) if _is_plain(known.value) else known.value
            if type(value) in (list, dict, set, deque):
                held = self._holders.setdefault(id(value), _Holder(value, value.copy(), []))
                held.owners.append((module, name))

    def _value(self, value: Any, owner: nn.Module, name: str, *, depth: int) -> None:
        kind = type(value)
        if kind in _ATOMS:
            return
        known = self._holders.get(id(value)) or self._values.get(id(value))
        if known is not None:
            known.owners.append((owner, name))
        elif isinstance(value, torch.Tensor):
            if _copies(value):
                self._values[id(value)] = _Value(value, value.detach().clone(), compat.version(value), [(owner, name)])
        elif isinstance(value, torch.Generator):
            self._values[id(value)] = _Stream(value, value.get_state(), [(owner, name)])
        elif isinstance(value, nn.Module):
            if id(value) not in self._visited:
                self._visited.add(id(value))
                self._module(value, owner)
        elif isinstance(value, (list, dict, set, deque)):
            self._holders[id(value)] = _Holder(value, value.copy(), [(owner, name)])
            items = value.values() if isinstance(value, dict) else value
            if len(value) <= _WALKED:
                for item in items:
                    if type(item) not in _ATOMS:
                        self._value(item, owner, name, depth=depth)
        elif isinstance(value, tuple):
            for item in value:
                self._value(item, owner, name, depth=depth)
        elif depth < 2 and _is_plain(value) and id(value) not in self._visited:
            self._visited.add(id(value))
            attributes = vars(value)
            self._holders[id(value)] = _Holder(attributes, attributes.copy(), [(owner, name)])
            for item in attributes.values():
                self._value(item, owner, name, depth=depth + 1)


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
            elif isinstance(live, dict) and (kept := {k: v for k, v in content.items() if k not in again}):
                parts.append((live, kept))
        return Delta(parts)

    def apply(self) -> None:
        """Makes the change."""
        for live, content in self._parts:
            if isinstance(live, dict):
                for key, value in content.items():
                    if value is _GONE:
                        live.pop(key, None)
                    else:
                        live[key] = value
            else:
                live.clear()
                live.update(content) if isinstance(live, set) else live.extend(content)


@dataclass(slots=True)
class _Holder:
    """A container and what it held; an owner with the attribute ``""`` holds the container's keys themselves."""

    live: Any
    content: Any
    owners: list[tuple[nn.Module, str]]

    def changes(self) -> list[str]:
        live, content = self.live, self.content
        if _same_items(live, content):
            return []
        if not isinstance(live, dict):
            return ["items"]
        keys = dict.fromkeys([*live, *content])
        return [str(key) for key in keys if not _same(live.get(key, _GONE), content.get(key, _GONE))] or ["order"]

    def _difference(self) -> tuple[Any, Any]:
        live, content = self.live, self.content
        if not isinstance(live, dict):
            return live, live.copy()
        keys = [key for key in {**live, **content} if not _same(live.get(key, _GONE), content.get(key, _GONE))]
        return live, {key: _plain(live.get(key, _GONE)) for key in keys}

    def restore(self, undone: list[tuple[Any, Any]]) -> list[str]:
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
class _Empty:
    """Dicts of one module that hold nothing, as most do: its hooks, or parameters, buffers, modules."""

    live: list[dict[Any, Any]]
    owners: list[tuple[nn.Module, str]]

    def changes(self) -> list[str]:
        return [str(key) for registry in self.live for key in registry] if any(self.live) else []

    def restore(self, undone: list[tuple[Any, Any]]) -> list[str]:
        changed = self.changes()
        if changed:
            undone += [(registry, dict(registry)) for registry in self.live if registry]
            for registry in self.live:
                registry.clear()
        return changed


@dataclass(slots=True)
class _Value:
    """A tensor and the value it had."""

    live: torch.Tensor
    value: torch.Tensor
    version: int
    owners: list[tuple[nn.Module, str]]

    def changes(self) -> list[str]:
        """Whether it was written to; what went past the version counter shows in ``restore``."""
        return [] if compat.version(self.live) == self.version else ["value"]

    def restore(self, undone: list[tuple[Any, Any]]) -> list[str]:
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
class _Stream:
    """A generator of the model's own and the state it had."""

    live: torch.Generator
    state: torch.Tensor
    owners: list[tuple[nn.Module, str]]

    def changes(self) -> list[str]:
        return [] if torch.equal(self.live.get_state(), self.state) else ["state"]

    def restore(self, undone: list[tuple[Any, Any]]) -> list[str]:
        if not self.changes():
            return []
        self.live.set_state(self.state)
        return ["state"]


class RandomStreams:
    """The state of every random generator of this process: Python's, NumPy's and torch's."""

    def __init__(self) -> None:
        self._python = random.getstate()
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        numpy = _numpy_random()
        self._numpy = None if numpy is None else numpy.get_state()

    def seed(self, seed: int) -> None:
        """Starts all streams anew from ``seed``."""
        random.seed(seed)
        torch.manual_seed(seed)
        numpy = _numpy_random()
        if numpy is not None:
            numpy.seed(seed)

    def restore(self) -> None:
        """Puts every stream back."""
        random.setstate(self._python)
        torch.set_rng_state(self._torch)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)
        numpy = _numpy_random()
        if numpy is not None and self._numpy is not None:
            numpy.set_state(self._numpy)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RandomStreams):
            return NotImplemented
        numpy = self._numpy is not None and other._numpy is not None  # NumPy may be imported in between
        return self._comparable(numpy) == other._comparable(numpy)

    __hash__ = None  # type: ignore[assignment]

    def _comparable(self, numpy: bool) -> tuple[Any, ...]:
        torches = tuple(state.numpy().tobytes() for state in (self._torch, *self._cuda))
        name, keys, *rest = self._numpy if numpy and self._numpy is not None else ("", None)
        return (self._python, torches, name, None if keys is None else keys.tobytes(), *rest)


def _numpy_random() -> Any:
    """NumPy's module of global random functions, if the program has imported it."""
    return sys.modules.get("numpy.random")


_ATOMS = frozenset({bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size})
_NAMESPACES = frozenset({"_parameters", "_buffers", "_modules"})
_REGISTRIES = frozenset(vars(nn.Module()).keys() - {"training", *_NAMESPACES})
_DEFINITIONS = (type, ModuleType, FunctionType, MethodType, functools.partial)
_WALKED = 1_000  # items of a container that are looked into; a vocabulary holds no state
_GONE = object()


def _is_plain(value: Any) -> bool:
    """An instance of somebody's class whose state is its ``__dict__``."""
    return (
        type(getattr(value, "__dict__", None)) is dict
        and not isinstance(value, _DEFINITIONS)
        and not type(value).__module__.startswith(("torch.", "builtins", "threading", "logging"))
    )


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


def _values(container: Any) -> Any:
    return container.values() if isinstance(container, dict) else ()


_LOOKS: tuple[Callable[[Any], Any], ...] = (iter, _values)  # a dict's keys, or a list's items; and a dict's values


def _same(one: Any, other: Any) -> bool:
    """Whether two items are one object, or equal numbers or texts."""
    if one is other:
        return True
    kind = type(other)
    return kind in (int, float, bool, str) and isinstance(one, kind) and _plain(one) == other


def _plain(value: Any) -> Any:
    """A number that a forward has read from a shape, as a plain one."""
    return value.pin() if hasattr(type(value), "pin") else value


def _copies(tensor: torch.Tensor) -> bool:
    """Whether the tensor has a value that can be copied and compared."""
    plain = type(tensor) in (torch.Tensor, nn.Parameter)
    return plain and tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_quantized
