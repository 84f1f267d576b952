"""Leaves a user's model as it was: tensors, Python attributes, gradients and random streams."""

from __future__ import annotations

import functools
import io
import operator
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn

from autopar import compat
from autopar.capture.held import Delta, Empty, Holder, OpenFile, Part, Stream, Value
from autopar.capture.outside import Binding, bindings
from autopar.capture.streams import RandomStreams

__all__ = ["ModelState", "preserved"]


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
        self._holders: dict[int, Holder] = {}
        self._values: dict[int, Value | Stream | OpenFile] = {}
        self._empty: dict[int, Empty] = {}
        self._bindings: dict[tuple[int, str], Binding] = {}
        self.undone = Delta([])
        self._contents: tuple[list[Any], ...] | None = None
        self._visited: set[int] = set()
        self._by_owner: dict[nn.Module, list[tuple[str, Part]]] | None = None
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
            inside = (*self._holders.values(), *self._values.values(), *self._empty.values())
            parts: tuple[Part, ...] = (*inside, *self._bindings.values())
            for part in parts:
                for owner, attribute in part.owners:
                    self._by_owner.setdefault(owner, []).append((attribute, part))
        found: dict[str, bool] = {}
        for attribute, part in self._by_owner.get(module, ()):
            for changed in part.changes():
                found[attribute or changed] = isinstance(part, Value)
        return found

    def _module(self, module: nn.Module, owner: nn.Module) -> None:
        attributes = vars(module)
        hooks: list[dict[Any, Any]] = []
        members: list[dict[Any, Any]] = []
        self._empty[id(hooks)] = Empty(hooks, [(owner, "hooks")])
        self._empty[id(members)] = Empty(members, [(owner, "")])
        self._holders[id(attributes)] = Holder(attributes, attributes.copy(), [(owner, "")])
        for name, value in attributes.items():
            if name in _NAMESPACES and isinstance(value, dict):  # a ScriptModule's are no dicts
                if value:
                    self._holders[id(value)] = Holder(value, value.copy(), [(owner, "")])
                else:
                    members.append(value)
                for key, member in value.items():
                    self._value(member, owner, key, depth=0)
            elif name in _REGISTRIES and isinstance(value, dict):  # a forward may install hooks when it first runs
                if value:
                    self._holders[id(value)] = Holder(value, value.copy(), [(owner, name)])
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
            if isinstance(known.value, _FILES):
                self._file(known.value, module, name)
                continue
            value = vars(known.value) if _is_plain(known.value) else known.value
            if type(value) in (list, dict, set, deque):
                held = self._holders.setdefault(id(value), Holder(value, value.copy(), []))
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
                self._values[id(value)] = Value(value, value.detach().clone(), compat.version(value), [(owner, name)])
        elif isinstance(value, torch.Generator):
            self._values[id(value)] = Stream(value, value.get_state(), [(owner, name)])
        elif isinstance(value, nn.Module):
            if id(value) not in self._visited:
                self._visited.add(id(value))
                self._module(value, owner)
        elif isinstance(value, (list, dict, set, deque)):
            self._holders[id(value)] = Holder(value, value.copy(), [(owner, name)])
            items = value.values() if isinstance(value, dict) else value
            if len(value) <= _WALKED:
                for item in items:
                    if type(item) not in _ATOMS:
                        self._value(item, owner, name, depth=depth)
        elif isinstance(value, tuple):
            for item in value:
                self._value(item, owner, name, depth=depth)
        elif isinstance(value, _FILES):
            self._file(value, owner, name)
        elif depth < 2 and _is_plain(value) and id(value) not in self._visited:
            self._visited.add(id(value))
            attributes = vars(value)
            self._holders[id(value)] = Holder(attributes, attributes.copy(), [(owner, name)])
            for item in attributes.values():
                self._value(item, owner, name, depth=depth + 1)

    def _file(self, file: Any, owner: nn.Module, name: str) -> None:
        known = self._values.get(id(file)) or OpenFile.of(file)
        if known is not None:
            self._values[id(file)] = known
            known.owners.append((owner, name))


_ATOMS = frozenset({bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size})
_NAMESPACES = frozenset({"_parameters", "_buffers", "_modules"})
_REGISTRIES = frozenset(vars(nn.Module()).keys() - {"training", *_NAMESPACES})
_FILES: Any = io.IOBase.__base__  # whose instances are found without the abstract class's registry
_DEFINITIONS = (type, ModuleType, FunctionType, MethodType, functools.partial)
_WALKED = 1_000  # items of a container that are looked into; a vocabulary holds no state


def _is_plain(value: Any) -> bool:
    """An instance of somebody's class whose state is its ``__dict__``."""
    return (
        type(getattr(value, "__dict__", None)) is dict
        and not isinstance(value, _DEFINITIONS)
        and not type(value).__module__.startswith(("torch.", "builtins", "threading", "logging"))
    )


def _values(container: Any) -> Any:
    return container.values() if isinstance(container, dict) else ()


_LOOKS: tuple[Callable[[Any], Any], ...] = (iter, _values)  # a dict's keys, or a list's items; and a dict's values


def _copies(tensor: torch.Tensor) -> bool:
    """Whether the tensor has a value that can be copied and compared."""
    plain = type(tensor) in (torch.Tensor, nn.Parameter)
    return plain and tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_quantized
