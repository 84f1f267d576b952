"""Leaves a user's model as it was: buffers, Python attributes, gradients and random streams."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["attribute_changes", "preserved", "restore_attributes", "snapshot_attributes"]

AttributeSnapshot = dict[nn.Module, dict[str, tuple[Any, Any]]]


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
    """Every attribute of every submodule, with a shallow copy of those that are containers."""
    return {
        module: {name: (value, _shallow(value)) for name, value in vars(module).items()}
        for module in model.modules()
    }


def attribute_changes(snapshot: AttributeSnapshot) -> dict[nn.Module, list[str]]:
    """Modules with the names of the attributes that were rebound, added, removed or changed in place."""
    changes: dict[nn.Module, list[str]] = {}
    for module, before in snapshot.items():
        now = vars(module)
        changed = [name for name in now.keys() | before.keys() if not _same(name, now, before)]
        if changed:
            changes[module] = sorted(changed)
    return changes


def restore_attributes(snapshot: AttributeSnapshot) -> None:
    """Puts every attribute back to the object, and every container to the content, that it had."""
    for module, before in snapshot.items():
        now = vars(module)
        for name in [name for name in now if name not in before]:
            del now[name]
        for name, (value, content) in before.items():
            if name not in now or now[name] is not value:
                now[name] = value
            if not _equal_content(value, content):
                _refill(value, content)


def _shallow(value: Any) -> Any:
    return value.copy() if type(value) in (list, dict, set) else None


def _same(name: str, now: dict[str, Any], before: dict[str, tuple[Any, Any]]) -> bool:
    if name not in now or name not in before:
        return False
    value, content = before[name]
    return now[name] is value and _equal_content(value, content)


def _equal_content(value: Any, content: Any) -> bool:
    if content is None or type(value) not in (list, dict, set):
        return True
    if len(value) != len(content):
        return False
    if isinstance(value, dict):
        return all(key in content and item is content[key] for key, item in value.items())
    if isinstance(value, set):
        return {id(item) for item in value} == {id(item) for item in content}
    return all(one is other for one, other in zip(value, content, strict=True))


def _refill(value: Any, content: Any) -> None:
    value.clear()
    if isinstance(value, list):
        value.extend(content)
    else:
        value.update(content)
