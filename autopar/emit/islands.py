"""Prints the islands of a program: a function each, which the printed forward installs while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from autopar.calls import flags
from autopar.emit.imports import Imports
from autopar.emit.layout import call, prefixed, render
from autopar.emit.literals import Writer
from autopar.emit.names import Scope, quoted, to_identifier
from autopar.errors import ModelError
from autopar.islands import Island, kind_of
from autopar.program import Program
from autopar.regions import region_modules

__all__ = ["Printed", "print_islands"]


@dataclass(frozen=True, slots=True)
class Printed:
    """Printed islands.

    Attributes:
        lines: their functions.
        decorator: what stands above the forward that installs them; empty where there are none.
    """

    lines: tuple[str, ...]
    decorator: tuple[str, ...]


def print_islands(
    program: Program, imports: Imports, taken: frozenset[str], write: Callable[[Program, str], list[str]]
) -> Printed:
    """The islands of a program and those inside them.

    One that Python source cannot express, that checkpoints or that asks for values of its inputs is left out: the
    printed file runs the forward of its module.

    Args:
        program: whose islands.
        imports: gets what the source needs.
        taken: names that no function may have.
        write: the source of a program's forward, given its docstring.
    """
    scope, lines, names = Scope({"forward", *taken}), [], []
    member = imports.member("autopar.emit", "installing") if program.islands and not program.lifted else ""
    for path, island in _all(program, ""):
        regions = region_modules(island.program.graph_module)
        if program.lifted or island.program.guards.questions is not None or regions:
            continue
        try:
            body = write(island.program, f"The forward of {path}, inside of an opaque call.")
        except ModelError:
            continue
        name = scope.bind(to_identifier(path.replace(".", "_")), -1, 1)
        lines += [*_head(member, path, island, imports), body[0].replace("def forward(", f"def {name}(", 1), *body[1:]]
        lines += ["", ""]
        names.append(name)
    return Printed(tuple(lines), tuple(render(call(f"@{member}.with_islands", names))) if names else ())


def _all(program: Program, around: str) -> Iterator[tuple[str, Island]]:
    for path, island in program.islands.items():
        full = f"{around}.{path}" if around else path
        yield full, island
        yield from _all(island.program, full)


def _head(member: str, path: str, island: Island, imports: Imports) -> list[str]:
    facts = {**flags(island.program.mode_dependent), **island.program.attributes}
    written = Writer(imports, str).expression(facts)
    kind = quoted(kind_of(island.key, island.modes))
    return render(call(f"@{member}.island", [quoted(path), f"kind={kind}", prefixed("facts=", written)]))
