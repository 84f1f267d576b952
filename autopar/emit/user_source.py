"""Reads the user's source for the names that they gave to values."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from autopar.program import SourceLine

__all__ = ["Statement", "statement_at"]


@dataclass(frozen=True, slots=True)
class Statement:
    """One assignment of the user's.

    Attributes:
        file, line: where it starts.
        targets: the names that are assigned; several for an unpacking.
        operator: the operator at the top of the right-hand side, such as ``"Add"``; ``""`` for none.
        augmented: whether it is ``x += ...``.
    """

    file: str
    line: int
    targets: tuple[str, ...]
    operator: str = ""
    augmented: bool = False


def statement_at(source: SourceLine | None) -> Statement | None:
    """The assignment to plain names that covers a line, if there is exactly one and nothing else."""
    return None if source is None else _assignments(source.file).get(source.line)


@lru_cache(maxsize=64)
def _assignments(file: str) -> dict[int, Statement | None]:
    try:
        with open(file, "rb") as handle:
            tree = ast.parse(handle.read())
    except (OSError, SyntaxError, ValueError):
        return {}  # names are a courtesy: a notebook cell or a zip file has none
    lines: dict[int, Statement | None] = {}
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return, ast.Expr)):
            continue
        found = _statement(file, node)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
            lines[line] = None if line in lines else found  # two on one line: neither is meant for sure
    return lines


def _statement(file: str, node: ast.stmt) -> Statement | None:
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        return Statement(file, node.lineno, (node.target.id,), type(node.op).__name__, augmented=True)
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        targets: tuple[str, ...] = tuple(_names(node.target))
        value = node.value
    elif isinstance(node, ast.Assign) and len(node.targets) == 1:
        targets, value = tuple(_names(node.targets[0])), node.value
    else:
        return None
    if not targets or (len(targets) > 1 and isinstance(value, (ast.Tuple, ast.List))):
        return None
    operator = type(value.op).__name__ if isinstance(value, (ast.BinOp, ast.UnaryOp)) else ""
    return Statement(file, node.lineno, targets, operator)


def _names(target: ast.expr) -> Iterator[str]:
    if isinstance(target, ast.Name):
        yield target.id
    elif isinstance(target, (ast.Tuple, ast.List)) and all(isinstance(e, ast.Name) for e in target.elts):
        for element in target.elts:
            assert isinstance(element, ast.Name)
            yield element.id
