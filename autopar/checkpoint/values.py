"""State of optimizers, schedules and scalers as JSON, with its tensors taken out; and back."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from autopar.errors import CheckpointError

__all__ = ["Path", "Tensors", "flat", "pack", "unpack"]

Path = tuple[str, ...]
Tensors = dict[Path, torch.Tensor]


def flat(path: Iterable[str]) -> str:
    """The name of a tensor in the files, as ``torch.distributed.checkpoint`` makes it of a nested dict."""
    return ".".join(path)


def pack(value: Any, path: Path, tensors: Tensors) -> Any:
    """A JSON value for ``value``; tensors go into ``tensors`` and leave their name.

    Args:
        value: numbers, texts, bytes, tensors, and lists, tuples, sets, dicts and counters of them.
        path: where it stands, from the top.
        tensors: gets every tensor.

    Raises:
        CheckpointError: something else is in it, which only a pickle could hold.

    Example:
        >>> found = {}
        >>> pack({"lr": 0.1, 3: (torch.zeros(2), None)}, ("adam",), found)
        {'$items': [['lr', 0.1], [3, {'$tuple': [{'$tensor': 'adam.3.0'}, None]}]]}
        >>> list(found)
        [('adam', '3', '0')]
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach()
        return {"$tensor": flat(path)}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        if not isinstance(value, Counter) and all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: pack(item, (*path, key), tensors) for key, item in value.items()}
        items = [[pack(key, (*path, "key"), {}), pack(item, (*path, str(key)), tensors)] for key, item in value.items()]
        return {"$counter" if isinstance(value, Counter) else "$items": items}
    if isinstance(value, (list, tuple, set, frozenset)):
        members = [pack(item, (*path, str(place)), tensors) for place, item in enumerate(value)]
        if isinstance(value, list):
            return members
        return {"$tuple" if isinstance(value, tuple) else "$set": members}
    raise CheckpointError(
        f"{flat(path)} is a {type(value).__name__}, which a checkpoint cannot hold.",
        why="Checkpoints hold tensors, numbers, texts and collections of them, and no pickles.",
        mend="Let its state_dict() return those alone, or keep this object out of the checkpoint.",
    )


def unpack(packed: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """What ``pack`` was given.

    Args:
        packed: its result, after a way through JSON.
        tensors: by their names in the files.
    """
    if isinstance(packed, list):
        return [unpack(item, tensors) for item in packed]
    if not isinstance(packed, dict):
        return packed
    kind = next((key for key in packed if key.startswith("$")), None)
    if kind is None:
        return {key: unpack(item, tensors) for key, item in packed.items()}
    if kind == "$tensor":
        return tensors[packed[kind]]
    if kind == "$bytes":
        return base64.b64decode(packed[kind])
    members = unpack(packed[kind], tensors)
    if kind in ("$items", "$counter"):
        pairs = dict(members)
        return pairs if kind == "$items" else Counter(pairs)
    return tuple(members) if kind == "$tuple" else set(members)
