"""Pipelines as text: ``"shapes,bucket{cap_mb=25},ddp-sync"``, read, checked and printed back."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autopar.errors import OptionError, PipelineError
from autopar.passes.base import Pass
from autopar.passes.registry import check_class, passes

__all__ = ["PassEntry", "build", "check_contract", "parse", "render"]

_NAME = re.compile(r"[A-Za-z][\w.-]*")


@dataclass(frozen=True, slots=True)
class PassEntry:
    """One pass of a pipeline with its options, as it is written."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.options:
            return self.name
        return f"{self.name}{{{','.join(f'{key}={_value_text(value)}' for key, value in self.options.items())}}}"


def parse(text: str) -> tuple[PassEntry, ...]:
    """Reads a pipeline.

    Options stand in braces after a pass's name; values are numbers, ``true``/``false``/``none``,
    or words (quoted where they hold anything but letters, digits, ``_``, ``.`` and ``-``).

    Raises:
        PipelineError: the text cannot be read; the message points at the place.

    Example:
        >>> [str(entry) for entry in parse("shapes, bucket{cap_mb=25}")]
        ['shapes', 'bucket{cap_mb=25}']
    """
    entries: list[PassEntry] = []
    position = 0
    while True:
        position = _skip(text, position)
        match = _NAME.match(text, position)
        if match is None:
            raise _unreadable(text, position, "a pass name")
        position = _skip(text, match.end())
        options: dict[str, Any] = {}
        if text[position : position + 1] == "{":
            options, position = _read_options(text, position + 1)
        entries.append(PassEntry(match.group(), options))
        position = _skip(text, position)
        if position == len(text):
            return tuple(entries)
        if text[position] != ",":
            raise _unreadable(text, position, "',' or the end")
        position += 1


def render(entries: Sequence[PassEntry]) -> str:
    """The pipeline as text that ``parse`` reads back to equal entries."""
    return ",".join(str(entry) for entry in entries)


def build(entries: Sequence[PassEntry]) -> list[Pass]:
    """Makes the passes of a pipeline.

    Raises:
        UnknownNameError: no pass of that name.
        OptionError: a pass does not take an option, or refuses its value.
    """
    built: list[Pass] = []
    for entry in entries:
        cls = passes.get(entry.name)
        accepted = [name for name in inspect.signature(cls).parameters if name not in ("args", "kwargs")]
        for option in entry.options:
            if option not in accepted:
                raise OptionError(
                    f"Pass {entry.name!r} has no option {option!r}.",
                    mend=f"Its options: {', '.join(accepted) or 'none'}.",
                )
        try:
            built.append(cls(**entry.options))
        except (TypeError, ValueError) as error:
            raise OptionError(f"Pass {entry.name!r} refuses its options: {error}.") from error
        check_class(cls)  # a class that came in through an entry point was never registered
    return built


def check_contract(pipeline: Sequence[Pass], established: frozenset[str] = frozenset({"captured"})) -> None:
    """Checks before anything runs that each pass finds what it requires.

    Raises:
        PipelineError: naming the pass, what it lacks, and what ran before it.
    """
    facts = set(established)
    for index, one in enumerate(pipeline):
        missing = sorted(one.requires - facts)
        if missing:
            before = ", ".join(earlier.name for earlier in pipeline[:index]) or "nothing"
            makers = sorted(
                name for name in passes.names() if set(missing) & set(getattr(passes.get(name), "provides", ()))
            )
            raise PipelineError(
                f"Pass {one.name!r} requires {', '.join(repr(fact) for fact in missing)}, "
                f"which nothing before it provides (before it: {before}).",
                mend=f"Put one of these before it: {', '.join(makers)}." if makers else "No known pass provides it.",
            )
        facts |= one.provides


def _read_options(text: str, position: int) -> tuple[dict[str, Any], int]:
    options: dict[str, Any] = {}
    while True:
        position = _skip(text, position)
        if text[position : position + 1] == "}":
            return options, position + 1
        match = re.compile(r"(\w+)\s*=\s*").match(text, position)
        if match is None:
            raise _unreadable(text, position, "an option such as cap_mb=25, or '}'")
        if match.group(1) in options:
            raise _unreadable(text, position, f"{match.group(1)!r} once only")
        options[match.group(1)], position = _read_value(text, match.end())
        position = _skip(text, position)
        if text[position : position + 1] == ",":
            position += 1
        elif text[position : position + 1] != "}":
            raise _unreadable(text, position, "',' or '}'")


def _read_value(text: str, position: int) -> tuple[Any, int]:
    match = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[\w.+-]+").match(text, position)
    if match is None:
        raise _unreadable(text, position, "a value")
    word = match.group()
    lowered = word.lower()
    if lowered in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[lowered], match.end()
    try:
        value = ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word, match.end()
    return (value if isinstance(value, (int, float, str)) else word), match.end()


def _value_text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and (not re.fullmatch(r"[\w.+-]+", value) or _read_value(value, 0)[0] != value):
        return repr(value)
    return str(value)


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _unreadable(text: str, position: int, wanted: str) -> PipelineError:
    found = repr(text[position]) if position < len(text) else "the end"
    return PipelineError(
        f"The pipeline cannot be read at character {position + 1}: expected {wanted}, found {found}, in {text!r}.",
        mend='A pipeline looks like "shapes,bucket{cap_mb=25},ddp-sync".',
    )
