"""Leaves a user's model as it was: buffers, Python attributes, gradients and random streams."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["attribute_changes", "preserved", "restore_attributes", "snapshot_attributes"]

AttributeSnapshot = dict[nn.Module, tuple[dict[str, Any], dict[str, Any]]]


@contextmanager
def preserved(model: nn.Module, *, seed: int | None = None) -> Iterator[None]:
    """Runs the block and then puts the model's state and all random streams back.

    Buffers get their values back, attributes their objects, and the CPU's and every CUDA device's
    generator its state. Parameters are not copied: the block must not write to them.

    Args:
        model: whose state to keep.
        seed: seed for the block's own random streams; None lets it go on with the current ones.
    """
    attributes = snapshot_attributes(model)
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    cuda = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=cuda):
        if seed is not None:
            torch.manual_seed(seed)
        try:
            yield
        finally:
            restore_attributes(attributes)
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)


def snapshot_attributes(model: nn.Module) -> AttributeSnapshot:
    """Every attribute of every submodule, and the content of those that are plain containers."""
    snapshot: AttributeSnapshot = {}
    for module in model.modules():
        attributes = vars(module).copy()
        contents = {name: value.copy() for name, value in attributes.items() if type(value) in _CONTAINERS}
        snapshot[module] = (attributes, contents)
    return snapshot


def attribute_changes(snapshot: AttributeSnapshot) -> dict[nn.Module, list[str]]:
    """Modules with the names of the attributes that were rebound, added, removed or changed in place."""
    changes: dict[nn.Module, list[str]] = {}
    for module, (before, contents) in snapshot.items():
        now = vars(module)
        changed = [name for name, value in contents.items() if not _same_items(before[name], value)]
        if not _same_items(now, before):
            names = now.keys() | before.keys()
            changed += [name for name in names if now.get(name, _GONE) is not before.get(name, _GONE)]
        if changed:
            changes[module] = sorted(set(changed))
    return changes


def restore_attributes(snapshot: AttributeSnapshot) -> None:
    """Puts every attribute back to the object, and every container to the content, that it had."""
    for module, (before, contents) in snapshot.items():
        now = vars(module)
        if not _same_items(now, before):
            now.clear()
            now.update(before)
        for name, content in contents.items():
            if not _same_items(before[name], content):
                _refill(before[name], content)


_CONTAINERS = (list, dict, set)
_GONE = object()


def _same_items(one: Any, other: Any) -> bool:
    """Whether two containers of one type hold the same objects: identity, since tensors do not compare."""
    if len(one) != len(other):
        return False
    if isinstance(one, dict):
        return all(map(operator.is_, one.values(), other.values())) and one.keys() == other.keys()
    if isinstance(one, set):
        return {id(item) for item in one} == {id(item) for item in other}
    return all(map(operator.is_, one, other))


def _refill(value: Any, content: Any) -> None:
    value.clear()
    if isinstance(value, list):
        value.extend(content)
    else:
        value.update(content)
