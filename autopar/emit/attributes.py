"""Writes the way from ``self`` to a submodule, parameter or buffer."""

from __future__ import annotations

from typing import Any

from torch import nn

from autopar.emit.names import is_identifier, quoted
from autopar.errors import ModelError

__all__ = ["attribute", "resolve"]

_INDEXED = (nn.Sequential, nn.ModuleList, nn.ParameterList)
_KEYED = (nn.ModuleDict, nn.ParameterDict)


def resolve(root: nn.Module, path: str) -> Any:
    """What a dotted path leads to.

    Raises:
        ModelError: the model has nothing there.
    """
    value: Any = root
    for name in path.split(".") if path else ():
        if not hasattr(value, name):
            raise ModelError(
                f"The graph reads {path!r}, which is not in the model: {type(value).__name__} has no {name!r}.",
                why="A printed file can only use what the user's own model holds.",
                mend="Register it on the model, as a buffer for instance.",
            )
        value = getattr(value, name)
    return value


def attribute(root: nn.Module, path: str, *, root_name: str = "self") -> str:
    """The expression for a dotted path, checked against the model.

    Args:
        root: the module that ``root_name`` stands for.
        path: dotted path as in ``named_parameters``; ``""`` is the root.

    Example:
        >>> from torch import nn
        >>> attribute(nn.Sequential(nn.Linear(1, 1)), "0.weight")
        'self[0].weight'
    """
    resolve(root, path)
    owner: Any = root
    written = root_name
    for name in path.split(".") if path else ():
        child = getattr(owner, name)
        if isinstance(owner, _INDEXED) and name.isdecimal() and _item(owner, int(name)) is child:
            written = f"{written}[{int(name)}]"
        elif isinstance(owner, _KEYED) and name in owner and _item(owner, name) is child:
            written = f"{written}[{quoted(name)}]"
        elif is_identifier(name):
            written = f"{written}.{name}"
        else:
            written = f"getattr({written}, {quoted(name)})"
        owner = child
    return written


def _item(owner: Any, key: Any) -> Any:
    """``owner[key]``, for the classes whose look-up is known to have no side effect."""
    if type(owner).__module__.startswith("torch.nn.") and hasattr(type(owner), "__getitem__"):
        try:
            return owner[key]
        except (IndexError, KeyError):
            return None
    return None
