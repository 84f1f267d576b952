"""Breaks long statements over lines, the way the common formatters for Python do."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autopar.emit.names import quoted

__all__ = [
    "LINE_LENGTH",
    "Expr",
    "Group",
    "assign",
    "call",
    "collection",
    "condition",
    "flat",
    "prefixed",
    "raising",
    "render",
]

LINE_LENGTH = 100
_STEP = "    "


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """An expression that ends in brackets: ``head`` + brackets around ``items``.

    Attributes:
        head: what stands before the bracket, such as a function's name.
        brackets: opening and closing bracket.
        items: what stands between, separated by commas.
        is_call: arguments may share one indented line; elements of a collection get one each.
    """

    head: str
    brackets: str
    items: tuple[Expr, ...]
    is_call: bool


Expr = str | Group


def call(function: str, arguments: Iterable[Expr]) -> Group:
    """``function(arguments)``."""
    return Group(head=function, brackets="()", items=tuple(arguments), is_call=True)


def collection(brackets: str, items: Iterable[Expr], *, head: str = "") -> Group:
    """A tuple, list, set or dict display; ``head`` as in ``"key": [...]``."""
    return Group(head=head, brackets=brackets, items=tuple(items), is_call=False)


def prefixed(text: str, value: Expr) -> Expr:
    """``text`` directly before an expression: ``bucket=`` or ``"key": ``."""
    return text + value if isinstance(value, str) else dataclasses.replace(value, head=text + value.head)


def flat(value: Expr) -> str:
    """The expression on one line.

    >>> flat(collection("()", ["weight"]))
    '(weight,)'
    """
    if isinstance(value, str):
        return value
    inner = ", ".join(flat(item) for item in value.items)
    one_tuple = not value.is_call and value.brackets == "()" and len(value.items) == 1
    return f"{value.head}{value.brackets[0]}{inner}{',' if one_tuple else ''}{value.brackets[1]}"


def render(value: Expr, *, indent: str = "", before: str = "", after: str = "") -> list[str]:
    """The lines of ``before + value + after``, each no longer than the line length where possible."""
    line = f"{indent}{before}{flat(value)}{after}"
    if len(line) <= LINE_LENGTH:
        return [line]
    if isinstance(value, str):
        if not before.endswith(("= ", "return ")):
            return [line]
        return [f"{indent}{before}(", f"{indent}{_STEP}{value}", f"{indent}){after}"]
    if not value.items:
        return [line]
    first = f"{indent}{before}{value.head}{value.brackets[0]}"
    last = f"{indent}{value.brackets[1]}{after}"
    inner = indent + _STEP
    arguments = inner + ", ".join(flat(item) for item in value.items)
    if value.is_call and len(arguments) <= LINE_LENGTH:
        return [first, arguments, last]
    return [first, *(text for item in value.items for text in render(item, indent=inner, after=",")), last]


def assign(targets: Sequence[str], value: Expr, *, indent: str, unpack: bool = False) -> list[str]:
    """An assignment to one name, or to several where ``unpack`` is set.

    >>> assign(["weight"], call("f", ["x"]), indent="", unpack=True)
    ['(weight,) = f(x)']
    """
    if not unpack:
        return render(value, indent=indent, before=f"{targets[0]} = ")
    names = f"({targets[0]},)" if len(targets) == 1 else ", ".join(targets)
    opened = value.head + value.brackets[0] if isinstance(value, Group) else flat(value)
    if len(f"{indent}{names} = {opened}") <= LINE_LENGTH:
        return render(value, indent=indent, before=f"{names} = ")
    *broken, last = [f"{indent}(", *(f"{indent}{_STEP}{name}," for name in targets), f"{indent})"]
    return [*broken, *render(value, indent=indent, before=f"{last.strip()} = ")]


def condition(parts: Sequence[str], *, indent: str) -> list[str]:
    """``if one or two or ...:``, a line for each part where it is too long for one."""
    line = f"{indent}if {' or '.join(parts)}:"
    if len(line) <= LINE_LENGTH:
        return [line]
    first, *rest = parts
    inner = indent + _STEP
    return [f"{indent}if (", f"{inner}{first}", *(f"{inner}or {part}" for part in rest), f"{indent}):"]


def raising(error: str, message: str, *, indent: str) -> list[str]:
    """A ``raise`` statement, its message in pieces where it is long."""
    inner = indent + _STEP
    if len(inner) + len(message) + 2 <= LINE_LENGTH:
        return render(call(f"raise {error}", [quoted(message)]), indent=indent)
    pieces = textwrap.wrap(message, LINE_LENGTH - len(inner) - 3, drop_whitespace=False)
    return [f"{indent}raise {error}(", *(f"{inner}{quoted(piece)}" for piece in pieces), f"{indent})"]
