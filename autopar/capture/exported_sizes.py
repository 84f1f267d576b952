"""For which sizes of its inputs an exported graph holds: torch.export's symbols as conditions of ours."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from autopar import compat
from autopar.guards import Condition, Dim, Expression

__all__ = ["size_conditions"]

_SMALLEST = 2  # torch.export decides what a dim of size 1 does, such as broadcasting, when it sees one
_RELATIONS: Mapping[str, Callable[..., Any]] = {
    "Equality": operator.eq, "Unequality": operator.ne, "StrictLessThan": operator.lt, "LessThan": operator.le,
    "StrictGreaterThan": operator.gt, "GreaterThan": operator.ge,
}  # fmt: skip
_ARITHMETIC: Mapping[str, Callable[..., Any]] = {
    "Add": operator.add, "Mul": operator.mul, "FloorDiv": operator.floordiv, "Mod": operator.mod,
    "PythonMod": operator.mod,
}  # fmt: skip


class _UnknownExpressionError(Exception):
    """Arithmetic that has no counterpart here."""


def size_conditions(shapes: Sequence[Sequence[Any]], example: Sequence[torch.Tensor]) -> tuple[Condition, ...]:
    """The conditions on sizes under which a graph that torch.export made is exact.

    A dim that was specialised must have its size again; one that is free has at least two elements;
    what was found out about free ones on the way must hold again. Where such a finding cannot be
    written with our operators, the dims in it must have their sizes again.

    Args:
        shapes: of each input, as the exported program describes it: numbers and symbolic sizes.
        example: the inputs that it was exported with.
    """
    found: dict[Condition, None] = {}
    dims: dict[Any, Dim] = {}  # by symbol
    derived: list[tuple[Dim, Any]] = []
    for index, shape in enumerate(shapes):
        for number, size in enumerate(shape):
            dim, symbol = Dim(index, number), compat.size_expression(size)
            if isinstance(symbol, int):
                found[Condition(operator.eq, (dim, symbol), outcome=True)] = None
            elif symbol.is_Symbol and symbol not in dims:
                dims[symbol] = dim
            else:
                derived.append((dim, symbol))
    sizes = {symbol: example[dim.source].size(dim.dim) for symbol, dim in dims.items()}
    for dim in dims.values():
        found[Condition(operator.ge, (dim, _SMALLEST), outcome=True)] = None
    for dim, symbol in derived:
        try:
            found[Condition(operator.eq, (dim, _operand(symbol, dims)), outcome=True)] = None
        except _UnknownExpressionError:
            size = example[dim.source].size(dim.dim)
            found[Condition(operator.eq, (dim, size), outcome=True)] = None
    for relation in compat.size_guards(shapes):
        found |= dict.fromkeys(_relation(relation, dims, sizes))
    return tuple(found)


def _relation(relation: Any, dims: Mapping[Any, Dim], sizes: Mapping[Any, int]) -> Iterator[Condition]:
    known = relation.free_symbols & dims.keys()
    try:
        function = _RELATIONS.get(type(relation).__name__)
        if function is None:
            raise _UnknownExpressionError
        operands = tuple(_operand(side, dims) for side in relation.args)
    except _UnknownExpressionError:
        for symbol in sorted(known, key=str):
            yield Condition(operator.eq, (dims[symbol], sizes[symbol]), outcome=True)
        return
    if known:
        yield Condition(function, operands, outcome=True)


def _operand(expression: Any, dims: Mapping[Any, Dim]) -> Any:
    if expression.is_Integer:
        return int(expression)
    if expression in dims:
        return dims[expression]
    function = _ARITHMETIC.get(type(expression).__name__)
    if function is None:
        raise _UnknownExpressionError
    operands = [_operand(part, dims) for part in expression.args]
    return functools.reduce(lambda one, other: Expression(function, (one, other)), operands)
