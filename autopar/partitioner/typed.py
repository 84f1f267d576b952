"""Reads JSON values into dataclasses, and says which value is of another type than its field."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["read_typed"]

_T = TypeVar("_T")
_WORDS: dict[Any, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def read_typed(wanted: type[_T], value: Any, place: str = "") -> _T:
    """A JSON value as this type: a dataclass, a tuple, a list, a mapping, a union of them, text or a number.

    Args:
        wanted: the type, as in an annotation.
        value: what ``json.loads`` returned.
        place: where it stands, for messages.

    Raises:
        TypeError: the value, or one inside it, is of another type.
    """
    found: _T = _read(wanted, value, place)
    return found


def _read(wanted: Any, value: Any, place: str) -> Any:
    kind, inner = get_origin(wanted), get_args(wanted)
    if wanted is Any:
        return value
    if wanted is None or wanted is type(None):
        return _as(value, value is None, "null", place)
    if kind is Literal:
        return _as(value, value in inner, f"one of {', '.join(map(str, inner))}", place)
    if kind in (Union, types.UnionType):
        rest = [one for one in inner if one is not type(None)]
        return None if value is None and len(rest) < len(inner) else _read(rest[0], value, place)
    if dataclasses.is_dataclass(wanted):
        return _dataclass(wanted, value, place)
    if kind in (tuple, list):
        items = _as(value, isinstance(value, list), "a list", place)
        return kind(_read(inner[0], item, f"{place}[{index}]") for index, item in enumerate(items))
    if kind is not None and issubclass(kind, Mapping):
        return _as(value, isinstance(value, dict), "an object", place)
    return _as(value, _is_plain(wanted, value), _WORDS[wanted], place)


def _dataclass(wanted: Any, value: Any, place: str) -> Any:
    types_of = _hints(wanted)
    fields = {field.name: field for field in dataclasses.fields(wanted)}
    _as(value, isinstance(value, dict), "an object", place)
    dot = f"{place}." if place else ""
    if unknown := sorted(value.keys() - fields.keys()):
        raise TypeError(f"{dot}{unknown[0]} is not known")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise TypeError(f"it has no {dot}{name}")
    return wanted(**{name: _read(types_of[name], one, dot + name) for name, one in value.items()})


@cache
def _hints(wanted: Any) -> dict[str, Any]:
    return get_type_hints(wanted)


def _is_plain(wanted: Any, value: Any) -> bool:
    if isinstance(value, bool):
        return wanted is bool
    if wanted is float:
        return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max
    return isinstance(value, wanted)


def _as(value: Any, fits: bool, words: str, place: str) -> Any:
    if not fits:
        text = repr(value)
        raise TypeError(f"{place or 'the whole'} is {text if len(text) <= 60 else text[:57] + '...'} and not {words}")
    return value
