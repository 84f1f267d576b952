"""Which names may stand in the printed file, and who holds them."""

from __future__ import annotations

import builtins
import keyword
import re
import unicodedata
from collections.abc import Iterable

__all__ = ["RESERVED", "Scope", "in_text", "is_identifier", "quoted", "to_identifier"]

RESERVED = frozenset(keyword.kwlist) | frozenset(dir(builtins))


def is_identifier(name: str) -> bool:
    """Whether ``owner.name`` means exactly this attribute.

    Python normalises identifiers (NFKC) when it reads source but not in ``setattr``, so a name that
    normalises to another one cannot be written with a dot.
    """
    return name.isidentifier() and not keyword.iskeyword(name) and unicodedata.normalize("NFKC", name) == name


def to_identifier(text: str) -> str:
    """An identifier that reads like ``text``.

    >>> to_identifier("blocks.0.fc-1.weight"), to_identifier("0.weight")
    ('blocks_0_fc_1_weight', 'p0_weight')
    """
    cleaned = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or "value"
    return f"p{cleaned}" if cleaned[0].isdigit() else cleaned


def quoted(text: str) -> str:
    """A string literal, in double quotes where that needs no escapes.

    >>> print(quoted("a-b"), quoted('x")'))
    "a-b" 'x")'
    """
    literal = repr(text)
    if literal[0] == "'" and '"' not in literal:
        return f'"{literal[1:-1]}"'
    return literal


def in_text(text: str) -> str:
    """Text that stays inside a one-line comment or a docstring, whatever it holds."""
    kept = "".join(c if c.isprintable() else "?" for c in text)
    return kept.replace("\\", "/").replace('"', "'")


class Scope:
    """The local names of one printed function: a name can be taken again when its value is dead."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = frozenset(taken) | RESERVED
        self._busy_until: dict[str, int] = {}

    def hold(self, name: str, last_use: int) -> None:
        """Records that an argument of the function keeps ``name`` until ``last_use``."""
        self._busy_until[name] = last_use

    def bind(self, wanted: str, position: int, last_use: int) -> str:
        """A name for a value made by the statement at ``position``: ``wanted`` where it is free."""
        base, number, name = wanted, 0, wanted
        while (name in self._taken and name not in self._busy_until) or self._busy_until.get(name, -1) > position:
            number += 1
            name = f"{base}_{number}"
        # position + 1: two targets of one statement never share a name, even when neither is used.
        self._busy_until[name] = max(last_use, position + 1)
        return name
