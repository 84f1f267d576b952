"""Loads a user's script without running its training code.

Imports, definitions, constants and seeds run at once. Any other statement runs only when a value
that somebody asks for is made from it (see ``slicing``), in file order and at most once.
"""

from __future__ import annotations
import __future__

import ast
import contextlib
import itertools
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from autopar.errors import AutoparError, ModelError, UsageError
from autopar.scripts.slicing import Slicer, Statement
from autopar.scripts.stand_ins import standing_in

__all__ = ["LoadedScript", "load_script"]

_MISSING = object()


def load_script(path: str | Path) -> LoadedScript:
    """Reads a script and runs its imports, definitions, constants and seeds.

    An import or definition that fails is an error only when something is made from it.

    Raises:
        UsageError: there is no such file.
        ModelError: the file is not Python, or has a syntax error.
    """
    given = Path(path)
    if not given.is_file():
        what = "is a folder, not a file" if given.is_dir() else "does not exist"
        raise UsageError(f"{given} {what}.", mend="Give the path of a Python file, such as model.py.")
    if given.suffix != ".py":
        raise ModelError(
            f"{given} is not a Python file.",
            why="autopar reads models from .py files only.",
            mend="Put the model's class, or a function that builds it, into such a file.",
        )
    try:
        tree = ast.parse(given.read_bytes(), filename=str(given))
    except SyntaxError as error:
        text = f" in `{error.text.strip()}`" if error.text else ""
        raise ModelError(
            f"{given}:{error.lineno or 1}: syntax error{text}: {error.msg}.", mend="Correct that line."
        ) from None
    except ValueError as error:
        raise ModelError(f"{given} cannot be read as Python: {error}.", mend="Give a text file.") from None
    script = LoadedScript(given, tree)
    script.prepare()
    return script


class LoadedScript:
    """A script whose statements run on demand.

    Attributes:
        path: the file, as the user named it.
        module: its namespace, importable by its name in this process.
        slicer: its statements and what depends on what.
    """

    def __init__(self, path: Path, tree: ast.Module) -> None:
        self.path = path
        self.slicer = Slicer(tree)
        self.module = _new_module(path.resolve(), ast.get_docstring(tree))
        self._flags = _future_flags(tree)
        self._done: set[int] = set()
        self._failed: dict[int, ModelError] = {}
        self._history: dict[str, dict[int, Any]] = {}

    def prepare(self) -> None:
        """Runs what is harmless; failures are kept until somebody needs the statement."""
        with self.active():
            for statement in self.slicer.statements:
                if statement.runs_always:
                    needed = self.slicer.slice(statement.reads.now, before=statement.index).statements
                    with contextlib.suppress(ModelError):
                        self._run(needed | {statement.index})

    def active(self) -> AbstractContextManager[None]:
        """A block in which the script's code may run: wrappers are inert, 'cuda' may mean the CPU."""
        return standing_in(self.path.resolve())

    def binds(self, name: str) -> bool:
        """Whether the module binds the name outside of its training code and main guard."""
        return self.slicer.binds(name)

    def line(self, name: str) -> int:
        """Line of the first statement that binds the name (1 when there is none)."""
        binders = self.slicer.binders(name)
        return binders[0].node.lineno if binders else 1

    def evaluate(self, name: str) -> Any:
        """The value of a name at the end of the file.

        Raises:
            ModelError: a statement that the value is made from failed.
        """
        line = self.line(name)
        return self.evaluate_expression(
            ast.Name(name, ast.Load(), lineno=line, col_offset=0, end_lineno=line, end_col_offset=0)
        )

    def evaluate_expression(self, node: ast.expr, *, before: Statement | None = None) -> Any:
        """The value of an expression where a statement starts, by default at the end of the file.

        Raises:
            ModelError: the expression, or a statement that it is made from, failed.
        """
        end = len(self.slicer.statements) if before is None else before.index
        wanted = Statement(end, ast.Expr(node))
        expression = ast.fix_missing_locations(ast.Expression(node))
        code = compile(expression, str(self.path.resolve()), "eval", self._flags, dont_inherit=True)
        names = wanted.reads.now | wanted.reads.later
        with self.active():
            self._run(self.slicer.slice(names, before=end).statements)
            with self._as_of(end), self._errors(node):
                return eval(code, self.module.__dict__)

    def peek(self, name: str) -> Any:
        """The value of a dotted name as far as the script has run; None where it has none yet."""
        first, *rest = name.split(".")
        value = self.module.__dict__.get(first)
        for attribute in rest:
            value = getattr(value, attribute, None)
        return value

    def failures(self) -> list[ModelError]:
        """What went wrong with imports and definitions that nothing has needed so far."""
        return [self._failed[index] for index in sorted(self._failed)]

    def call(self, function: Callable[[], Any], node: ast.AST | None = None) -> Any:
        """Calls something of the script's as the script would; see ``active``.

        Raises:
            ModelError: it raised an exception; names the script's line.
        """
        with self.active(), self._errors(node):
            return function()

    def _run(self, indices: frozenset[int]) -> None:
        for index in sorted(indices - self._done):
            if index in self._failed:
                raise self._failed[index]
            statement = self.slicer.statements[index]
            try:
                self._execute(statement)
            except ModelError as error:
                self._failed[index] = error
                raise

    def _execute(self, statement: Statement) -> None:
        body = ast.Module([statement.node], [])
        code = compile(body, str(self.path.resolve()), "exec", self._flags, dont_inherit=True)
        with self._as_of(statement.index), self._errors(statement.node):
            exec(code, self.module.__dict__)
            for name in statement.binds & self.module.__dict__.keys():
                self._history.setdefault(name, {})[statement.index] = self.module.__dict__[name]
        self._done.add(statement.index)

    @contextlib.contextmanager
    def _as_of(self, index: int) -> Iterator[None]:
        """Shows the namespace as it was before that statement, where later ones ran already."""
        namespace = self.module.__dict__
        for name, values in self._history.items():
            if max(values) >= index:
                _put(namespace, name, values.get(max((i for i in values if i < index), default=-1), _MISSING))
        try:
            yield
        finally:
            for name, values in self._history.items():
                _put(namespace, name, values[max(values)])

    @contextlib.contextmanager
    def _errors(self, node: ast.AST | None) -> Iterator[None]:
        try:
            yield
        except AutoparError:
            raise
        except (Exception, SystemExit) as error:
            raise self._explained(error, node) from error

    def _explained(self, error: BaseException, node: ast.AST | None) -> ModelError:
        """The error as one that names the script's line."""
        own = str(self.path.resolve())
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == own and f.lineno]
        line = lines[-1] if lines else getattr(node, "lineno", 1)
        place = f"{self.path}:{line}: `{self.text(line)}`"
        if isinstance(error, SystemExit):
            return ModelError(
                f"{place} ended the program (exit code {error.code}).",
                why="The model is made from this line, and autopar loads the file without arguments.",
                mend="Give the arguments defaults, or write a function build_model() that needs none.",
                code="AP125",
            )
        message = str(error).strip().partition("\n")[0].rstrip(".")
        mend = "Correct it, or write a function build_model() that does without it."
        if isinstance(error, ImportError):
            mend = "Install what is missing into the environment in which autopar runs."
        return ModelError(
            f"{place} raised {type(error).__name__}{': ' if message else ''}{message}.",
            why="autopar ran this line because the model or its inputs are made from it.",
            mend=mend,
            code="AP125",
        )

    def text(self, line: int) -> str:
        """That line of the file, without indentation."""
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        return lines[line - 1].strip() if 0 < line <= len(lines) else ""


def _put(namespace: dict[str, Any], name: str, value: Any) -> None:
    if value is _MISSING:
        namespace.pop(name, None)
    else:
        namespace[name] = value


def _new_module(path: Path, doc: str | None) -> types.ModuleType:
    """An empty module in ``sys.modules``, so that classes in it pickle and show their source."""
    stem = "".join(letter if letter.isalnum() else "_" for letter in path.stem)
    names = (f"autopar_script_{stem}" + (f"_{n}" if n else "") for n in itertools.count())
    name = next(name for name in names if name not in sys.modules)
    module = types.ModuleType(name, doc)
    module.__file__ = str(path)
    sys.modules[name] = module
    return module


def _future_flags(tree: ast.Module) -> int:
    """Compiler flags of the file's ``from __future__`` imports, which hold for every statement."""
    flags = 0
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            for alias in node.names:
                flags |= getattr(__future__, alias.name).compiler_flag
    return flags
