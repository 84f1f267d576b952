"""Sizes of tensors as numbers that remember where they come from.

While a model is recorded, ``x.shape[0]`` is an ordinary ``int`` for the user's code and an
expression for the graph: arithmetic on it is followed, so that ``x.view(x.shape[0] * 2, -1)`` is
recorded for any size. Where Python needs the number itself (a comparison, a loop, a dict key), the
use is noted as a *condition*: the graph holds for calls that fulfil it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from autopar.guards import Condition, Dim, Expression

__all__ = ["Size", "SizeNotes"]


class SizeNotes:
    """What is noted while sizes are used.

    Attributes:
        conditions: in the order in which they were met; each once.
    """

    def __init__(self) -> None:
        self.conditions: dict[Condition, None] = {}

    def note(self, condition: Condition) -> None:
        """Adds a condition."""
        self.conditions[condition] = None


class Size(int):
    """A number that knows its expression."""

    origin: Dim | Expression
    notes: SizeNotes

    @classmethod
    def of(cls, value: int, origin: Dim | Expression, notes: SizeNotes) -> Size:
        """``value`` with where it comes from."""
        size = cls(value)
        size.origin, size.notes = origin, notes
        return size

    def pin(self) -> int:
        """The plain number; notes that the graph holds for this one only."""
        value = int.__int__(self)
        self.notes.note(Condition(operator.eq, (self.origin, value), outcome=True))
        return value

    def __hash__(self) -> int:
        return hash(self.pin())

    def __bool__(self) -> bool:
        return _compared(operator.ne, self, 0)

    def __int__(self) -> int:
        return self.pin()

    def __float__(self) -> float:
        return float(self.pin())

    def __repr__(self) -> str:
        return repr(self.pin())

    def __format__(self, spec: str) -> str:
        return format(self.pin(), spec)

    def __round__(self, digits: Any = None) -> int:
        return self.pin()

    def __reduce__(self) -> Any:
        return int, (self.pin(),)

    def __deepcopy__(self, memo: dict[int, Any]) -> Size:
        return self


def _plain(value: Any) -> Any:
    return int.__int__(value) if isinstance(value, Size) else value


def _origin(value: Any) -> Any:
    return value.origin if isinstance(value, Size) else value


def _compared(function: Callable[..., Any], size: Size, other: Any) -> bool:
    outcome = bool(function(_plain(size), _plain(other)))
    size.notes.note(Condition(function, (_origin(size), _origin(other)), outcome))
    return outcome


def _comparison(function: Callable[..., Any], native: Callable[..., Any]) -> Callable[..., Any]:
    def compare(self: Size, other: Any) -> Any:
        if type(other) in (int, Size):
            return _compared(function, self, other)
        return native(self.pin(), other) if isinstance(other, int) else _with_float(function, self, other)

    return compare


def _with_float(function: Callable[..., Any], size: Size, other: Any) -> Any:
    """What is no arithmetic of integers needs the number; tensors are recorded by their own operators."""
    return function(size.pin(), other) if isinstance(other, (float, complex)) else NotImplemented


def _arithmetic(function: Callable[..., Any], *, reflected: bool) -> Callable[..., Any]:
    def compute(self: Size, other: Any) -> Any:
        if type(other) not in (int, Size, bool):
            if isinstance(other, (float, complex)):
                return function(other, self.pin()) if reflected else function(self.pin(), other)
            if isinstance(other, (list, tuple, str)):  # repetition
                return function(other, self.pin())
            return NotImplemented
        operands: Sequence[Any] = (other, self) if reflected else (self, other)
        value = function(*map(_plain, operands))
        if type(value) is not int:
            self.pin()
            if isinstance(other, Size):
                other.pin()
            return value
        return Size.of(value, Expression(function, tuple(map(_origin, operands))), self.notes)

    return compute


def _pinned(name: str) -> Callable[..., Any]:
    native = getattr(int, name)

    def compute(self: Size, *others: Any) -> Any:
        return native(self.pin(), *(other.pin() if isinstance(other, Size) else other for other in others))

    return compute


for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Size, f"__{_name}__", _comparison(getattr(operator, _name), getattr(int, f"__{_name}__")))
for _name in ("add", "sub", "mul", "floordiv", "mod", "truediv", "pow"):
    setattr(Size, f"__{_name}__", _arithmetic(getattr(operator, _name), reflected=False))
    setattr(Size, f"__r{_name}__", _arithmetic(getattr(operator, _name), reflected=True))
for _name in ("__and__", "__or__", "__xor__", "__rand__", "__ror__", "__rxor__", "__lshift__", "__rshift__",
              "__divmod__", "__rdivmod__", "__abs__", "__invert__", "__trunc__", "__floor__", "__ceil__",
              "bit_length"):  # fmt: skip
    setattr(Size, _name, _pinned(_name))


def _negated(self: Size) -> Size:
    return Size.of(-int.__int__(self), Expression(operator.neg, (self.origin,)), self.notes)


Size.__neg__ = _negated  # type: ignore[method-assign,assignment]
