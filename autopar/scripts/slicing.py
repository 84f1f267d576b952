"""Backward slices of a script: the module-level statements that a value is made from, and no others.

After Weiser, "Program Slicing", IEEE TSE 10(4), 1984, on whole module-level statements: a slice
holds the last statement that surely binds a wanted name, those after it that may rebind or change
it, and the same again for everything that these read.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from autopar.scripts.names import Reads, bound_names, dotted, mutated_names, reads, walk_scope

__all__ = ["Slicer", "Statement"]

_BLOCKS = (ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.If, ast.Try)
_DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_SURE = (ast.Assign, ast.AnnAssign, *_DEFINITIONS)
_SEEDS = frozenset({"manual_seed", "manual_seed_all", "seed", "seed_everything", "seed_all", "set_seed"})


@dataclass(frozen=True, eq=False)
class Statement:
    """One module-level statement."""

    index: int
    node: ast.stmt
    imported: frozenset[str] = frozenset()

    @cached_property
    def reads(self) -> Reads:
        """Names that it reads."""
        return reads(self.node)

    @cached_property
    def binds(self) -> frozenset[str]:
        """Names that it can bind."""
        if isinstance(self.node, ast.AnnAssign) and self.node.value is None:
            return frozenset()
        return frozenset(bound_names([self.node]))

    @cached_property
    def changes(self) -> frozenset[str]:
        """Names that it binds, or whose objects it changes in place."""
        return self.binds | mutated_names(self.node, imported=self.imported)

    @property
    def is_sure(self) -> bool:
        """Whether what it binds holds the new value afterwards in any case."""
        return isinstance(self.node, _SURE)

    @cached_property
    def is_main_guard(self) -> bool:
        """Whether it is ``if __name__ == "__main__":``."""
        return isinstance(self.node, ast.If) and "__name__" in reads(self.node.test).now

    @cached_property
    def is_training(self) -> bool:
        """Whether it is a block that takes training steps."""
        return isinstance(self.node, _BLOCKS) and any(
            isinstance(item, ast.Call)
            and isinstance(item.func, ast.Attribute)
            and item.func.attr in ("backward", "step")
            for item in walk_scope([self.node])
        )

    @property
    def never_runs(self) -> bool:
        """Whether no slice may hold it."""
        return self.is_main_guard or self.is_training

    @cached_property
    def runs_always(self) -> bool:
        """Whether it is an import (or ``sys.path`` for one), a definition, a constant or a seed."""
        node = self.node
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            called = dotted(node.value.func)
            return called.rpartition(".")[2] in _SEEDS or called.startswith("sys.path.")
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            return all(isinstance(target, ast.Name) for target in targets) and _is_literal(node.value)
        return isinstance(node, _DEFINITIONS)


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


class Slicer:
    """Finds slices of one module.

    >>> slicer = Slicer(ast.parse("n = 3; m = 4; fit(); model = Net(n)"))
    >>> sorted(slicer.slice({"model"}).statements)
    [0, 3]
    """

    def __init__(self, tree: ast.Module) -> None:
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        imported = frozenset(bound_names(imports))
        self.statements = [Statement(index, node, imported) for index, node in enumerate(tree.body)]
        self._changing: dict[str, list[Statement]] = {}
        for statement in self.statements:
            if not statement.never_runs:
                for name in statement.changes:
                    self._changing.setdefault(name, []).append(statement)

    def binds(self, name: str) -> bool:
        """Whether a statement that may run binds the name."""
        return any(name in statement.binds for statement in self._changing.get(name, ()))

    def binders(self, name: str) -> list[Statement]:
        """Statements that may run and bind the name, in file order."""
        return [statement for statement in self._changing.get(name, ()) if name in statement.binds]

    def slice(self, names: Iterable[str], *, before: int | None = None) -> Slice:
        """What must run so that ``names`` have the values they have before statement ``before``.

        ``before`` defaults to the end of the file.
        """
        end = len(self.statements) if before is None else before
        todo = [(name, end) for name in names]
        seen: set[tuple[str, int]] = set()
        found: set[int] = set()
        while todo:
            name, at = item = todo.pop()
            if item in seen:
                continue
            seen.add(item)
            for statement in self._reaching(name, at):
                found.add(statement.index)
                todo += [(read, statement.index) for read in statement.reads.now]
                # The body of a function reads what is there when it is called, at the latest here.
                todo += [(read, at) for read in statement.reads.later]
        return Slice(frozenset(found), frozenset(name for name, _ in seen))

    def _reaching(self, name: str, before: int) -> list[Statement]:
        """Statements whose effect on the name is still there before that statement."""
        reaching = []
        for statement in reversed(self._changing.get(name, ())):
            if statement.index < before:
                reaching.append(statement)
                if statement.is_sure and name in statement.binds:
                    break
        return reaching


@dataclass(frozen=True, slots=True)
class Slice:
    """Indices of statements to run, and every name that was followed to find them."""

    statements: frozenset[int]
    names: frozenset[str]
