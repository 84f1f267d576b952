"""What a captured graph rests on besides the structure of its call: sizes, and values of inputs."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

__all__ = ["Condition", "Dim", "Expression", "Guards", "shapes_of"]


@dataclass(frozen=True, slots=True)
class Dim:
    """The size of one dim of a tensor.

    Attributes:
        source: the node that returns the tensor, or the index of an input.
        dim: which one.
    """

    source: Any
    dim: int


@dataclass(frozen=True, slots=True)
class Expression:
    """Arithmetic on sizes."""

    function: Callable[..., Any]
    operands: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that held for the sizes of the recorded call, and on which the graph rests.

    Attributes:
        function: a comparison of ``operator``.
        operands: ``Dim``, ``Expression`` or plain numbers.
        outcome: what it gave.
    """

    function: Callable[..., Any]
    operands: tuple[Any, ...]
    outcome: bool

    def dims(self) -> list[Dim]:
        """The sizes that it speaks of."""
        return [dim for operand in self.operands for dim in _dims(operand)]

    def text(self, inputs: Sequence[str]) -> str:
        """The condition as Python would write it, for the names of the inputs."""
        function = self.function if self.outcome else _OPPOSITES[self.function]
        one, other = (_text(operand, inputs) for operand in self.operands)
        return f"{one} {_SIGNS[function]} {other}"

    def holds(self, size_of: Callable[[Dim], int]) -> bool:
        """Whether it holds for other sizes."""
        return bool(self.function(*(_value(operand, size_of) for operand in self.operands))) is self.outcome


def _text(operand: Any, inputs: Sequence[str]) -> str:
    if isinstance(operand, Dim):
        return f"{inputs[operand.source]}.shape[{operand.dim}]"
    if not isinstance(operand, Expression):
        return str(operand)
    parts = [_text(part, inputs) for part in operand.operands]
    sign = _SIGNS.get(operand.function, operand.function.__name__)
    return f"({f' {sign} '.join(parts)})" if len(parts) == 2 else f"{sign}{parts[0]}"


_SIGNS: dict[Any, str] = {
    operator.eq: "==", operator.ne: "!=", operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">=",
    operator.add: "+", operator.sub: "-", operator.mul: "*", operator.floordiv: "//", operator.mod: "%",
    operator.pow: "**", operator.neg: "-",
}  # fmt: skip
_OPPOSITES: dict[Any, Any] = {
    operator.eq: operator.ne, operator.ne: operator.eq, operator.lt: operator.ge, operator.ge: operator.lt,
    operator.gt: operator.le, operator.le: operator.gt,
}  # fmt: skip


def _dims(operand: Any) -> list[Dim]:
    if isinstance(operand, Dim):
        return [operand]
    return [dim for part in operand.operands for dim in _dims(part)] if isinstance(operand, Expression) else []


def _value(operand: Any, size_of: Callable[[Dim], int]) -> Any:
    if isinstance(operand, Dim):
        return size_of(operand)
    if isinstance(operand, Expression):
        return operand.function(*(_value(part, size_of) for part in operand.operands))
    return operand


@dataclass(frozen=True, slots=True)
class Guards:
    """For which calls, of those with the right structure, a graph is exact.

    Attributes:
        conditions: on the sizes of inputs (``Dim.source`` is the input's index).
        confirmed: the sizes for which the graph is known to be exact, one tuple of shapes for each.
        uncertain: the graph rests on sizes that are known only while the model runs, so that for
            sizes that were not confirmed another recording has to tell.
        questions: gives, for the graph's inputs, the values that decided Python's control flow.
        answers: what they were.
    """

    conditions: tuple[Condition, ...] = ()
    confirmed: set[tuple[torch.Size, ...]] = field(default_factory=set)
    uncertain: bool = False
    questions: fx.GraphModule | None = None
    answers: tuple[Any, ...] = ()

    @property
    def none(self) -> bool:
        """Whether the graph is exact for every call of its structure."""
        return not (self.conditions or self.uncertain or self.questions)

    def sizes_hold(self, inputs: Sequence[torch.Tensor]) -> bool | None:
        """Whether the graph is exact for inputs of these sizes; None where only a recording can tell."""
        if not self.conditions and not self.uncertain:
            return True
        shapes = shapes_of(inputs)
        if shapes in self.confirmed:
            return True
        if not all(condition.holds(lambda dim: shapes[dim.source][dim.dim]) for condition in self.conditions):
            return False
        if self.uncertain:
            return None
        self.confirm(inputs)
        return True

    def values_hold(self, inputs: Sequence[torch.Tensor]) -> bool:
        """Whether Python's questions about the inputs have the same answers."""
        if self.questions is None:
            return True
        try:
            with torch.no_grad():
                return tuple(self.questions.forward(*inputs)) == self.answers
        except Exception:  # a question that cannot be asked of these inputs has another answer
            return False

    def confirm(self, inputs: Sequence[torch.Tensor]) -> None:
        """Notes that the graph is exact for these sizes."""
        if len(self.confirmed) >= _REMEMBERED:
            self.confirmed.pop()
        self.confirmed.add(shapes_of(inputs))


_REMEMBERED = 4_096


def shapes_of(inputs: Sequence[torch.Tensor]) -> tuple[torch.Size, ...]:
    """The sizes of all inputs."""
    return tuple(tensor.shape for tensor in inputs)
