"""Prints the forward of a program as a Python function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import fx

from autopar.emit.body import Body
from autopar.emit.imports import Imports
from autopar.emit.islands import print_islands
from autopar.emit.layout import Expr, assign, call, condition, raising, render
from autopar.emit.names import Scope
from autopar.emit.operations import Operations
from autopar.emit.regions import regions_of
from autopar.emit.replica import replica_graph
from autopar.emit.signature import Arguments, arguments, forwarded, parameter_names, result, single_output
from autopar.emit.targets import callable_name
from autopar.emit.variables import Variables, lay_out
from autopar.guards import Guards
from autopar.program import Program
from autopar.regions import outlined
from autopar.structure import take_apart

__all__ = ["Function", "emit_forward", "write_forward"]

_INDENT = "    "
_ASK = "asked_of_inputs"


@dataclass(frozen=True, slots=True)
class Function:
    """A printed function.

    Attributes:
        lines: its source.
        imports: what the source needs.
    """

    lines: tuple[str, ...]
    imports: Imports


def emit_forward(program: Program) -> str:
    """The program's forward alone, as it stands: before, between or after passes.

    Args:
        program: any program; of a lifted one the parameters are the first arguments.

    Returns:
        Source of one function, ``def forward(self, ...)``.

    Raises:
        ModelError: the program holds something that Python source cannot express.

    Example:
        >>> import autopar, torch
        >>> print(emit_forward(autopar.trace(torch.nn.Linear(10, 1), torch.randn(32, 10))))
        def forward(self, input):
            return F.linear(input, self.weight, self.bias)
        <BLANKLINE>
    """
    return "\n".join(write_forward(program).lines) + "\n"


def write_forward(
    program: Program, *, docstring: str = "", model_file: Path | None = None, defined: frozenset[str] = frozenset()
) -> Function:
    """Prints the program's forward.

    Args:
        program: any program.
        docstring: one line, or nothing.
        model_file: the user's file; functions that it defines are taken from it.
        defined: names that the printed file defines itself, which no import may take.
    """
    program = outlined(program)
    # Twice: the first round finds out which imports there are, so that no variable hides one.
    imports = Imports({*parameter_names(program), *defined})

    def write_island(island: Program, text: str) -> list[str]:
        return _write(island, text, model_file, imports, imports.names)

    _write(program, docstring, model_file, imports, frozenset())
    print_islands(program, imports, defined, write_island)
    lines = _write(program, docstring, model_file, imports, imports.names)
    islands = print_islands(program, imports, defined | imports.names, write_island)
    first = next(index for index, line in enumerate(lines) if line.startswith("def forward("))
    lines = [*islands.lines, *lines[:first], *islands.decorator, *lines[first:]]
    if program.guards.questions is not None:
        lines = [*_questions(program, model_file, imports), "", "", *lines]
    return Function(tuple(lines), imports)


def _questions(program: Program, model_file: Path | None, imports: Imports) -> list[str]:
    """A function that asks what Python asked about the values of the inputs."""
    assert program.guards.questions is not None
    _, structure = take_apart(program.guards.answers)
    signature = replace(program.signature, out_spec=structure, out_constants={})
    asking = replace(program, graph_module=program.guards.questions, signature=signature, guards=Guards(), plan=None)
    text = "What the forward's Python code asks about its inputs."
    first, *rest = _write(replace(asking, lifted=()), text, model_file, imports, imports.names)
    return [first.replace("def forward(", f"def {_ASK}(", 1), *rest]


def _otherwise_eager(program: Program, head: Arguments, operations: Operations, self_name: str) -> list[str]:
    """Runs the user's own forward for calls that the graph is not for."""
    guards = program.guards
    if guards.none:
        return []
    given = ", ".join([self_name, *forwarded(program)])
    if guards.uncertain:
        shapes = zip(head.leaves, program.example, strict=True)
        unmet = [f"{leaf}.shape != {tuple(tensor.shape)}" for leaf, tensor in shapes]
    else:
        unmet = [replace(one, outcome=not one.outcome).text(head.leaves) for one in guards.conditions]
    if guards.questions is not None:
        unmet.append(f"{_ASK}({given}) != {guards.answers!r}")
    script = operations.write.imports.member("autopar.emit", "script")
    return [
        *condition(unmet, indent=_INDENT),
        f"{_INDENT * 2}return {script}.eager_forward({given})  # this graph is for other calls",
    ]


def _write(
    program: Program, docstring: str, model_file: Path | None, imports: Imports, taken: frozenset[str]
) -> list[str]:
    def name_of(target: Callable[..., Any]) -> str:
        return callable_name(target, imports, model_file)

    text = [f'{_INDENT}"""{docstring}"""'] if docstring else []
    nested = replica_graph(program)
    if program.signature.out_spec is None and nested is None:
        return _opaque(program, imports, text)
    before: list[str] = []
    special: dict[str, Expr] = {}
    if nested is not None and program.signature.out_spec is None:
        special[nested.target] = "whole"
    elif nested is not None:
        special[nested.target] = nested.as_module(imports)
        before = [*nested.lines(imports, name_of, taken), "", ""]
    self_name = "self_" if "self" in parameter_names(program) else "self"
    regions = regions_of(program.graph_module, program.model, program.plan)
    for region in regions:
        special[region.target] = region.as_function(imports, self_name)
        before += [*region.lines(imports, name_of, taken), "", ""]
    layout = lay_out(program.graph, program.model, special)
    functions = {region.target for region in regions} | ({nested.name} if nested else set())
    scope = Scope({self_name, "whole", *functions, *taken})
    variables = Variables(layout, scope)
    operations = Operations(program.model, imports, variables.names, name_of, self_name=self_name, special=special)
    if program.signature.out_spec is None:
        lines = _whole(program, variables, scope, imports, text)
    else:
        lines = _head(program, operations, variables, scope, self_name, text)
    body = Body(layout, variables, operations, program.model, program.plan)
    (output,) = program.find("output")
    returned = body.returns(single_output(program, output.args[0]))
    lines += body.lines(returned)
    if returned is None:
        lines += render(result(program, output.args[0], operations.write), indent=_INDENT, before="return ")
    return [*before, *lines]


def _head(
    program: Program, operations: Operations, variables: Variables, scope: Scope, self_name: str, text: list[str]
) -> list[str]:
    """The ``def`` line, the check of what the graph is specialised to, and the unpacking of inputs."""
    head = arguments(program, operations.write)
    inputs = list(program.find("placeholder"))
    lifted, inputs = inputs[: len(program.lifted)], inputs[len(program.lifted) :]
    for node in lifted:
        variables.names[node] = scope.bind(node.name, -1, variables.last_use(node))
    parameters = [self_name, *(variables.names[node] for node in lifted), *head.parameters]
    lines = [*render(call("def forward", parameters), after=":"), *text]
    nested = set(head.names) - set(head.leaves)
    for parameter in head.names:
        # While several arguments are taken apart, what comes out of one must not hide another.
        scope.hold(parameter, 0 if parameter in nested and len(nested) > 1 else -1)
    if head.guards:
        lines += condition(head.guards, indent=_INDENT)
        message = f"forward is exact for {', '.join(head.exact_for)} only: transform the model again"
        lines += raising("ValueError", message, indent=_INDENT * 2)
    lines += _otherwise_eager(program, head, operations, self_name)
    return [*lines, *_unpack(head.leaves, head.unpackings, inputs, variables, scope)]


def _unpack(
    leaves: list[str],
    unpackings: list[tuple[str, list[int]]],
    inputs: list[fx.Node],
    variables: Variables,
    scope: Scope,
) -> list[str]:
    """Names the tensors of a call: a bare argument keeps its name, nested ones are taken out."""
    lines: list[str] = []
    done: set[int] = set()
    for position, (node, text) in enumerate(zip(inputs, leaves, strict=True)):
        if text.isidentifier():
            variables.names[node] = text
            scope.hold(text, variables.last_use(node))
            done.add(position)
    for text, positions in unpackings:
        used = [inputs[position] for position in positions]
        names = [scope.bind(node.name, -1, variables.last_use(node)) for node in used]
        variables.names |= dict(zip(used, names, strict=True))
        lines += assign(names, text, indent=_INDENT, unpack=True)
        done |= set(positions)
    for position, (node, text) in enumerate(zip(inputs, leaves, strict=True)):
        if position not in done and node.users:
            variables.names[node] = scope.bind(node.name, -1, variables.last_use(node))
            lines += assign([variables.names[node]], text, indent=_INDENT)
    return lines


def _whole(program: Program, variables: Variables, scope: Scope, imports: Imports, text: list[str]) -> list[str]:
    """The head of a replicated opaque model: its call taken apart into tensors, whatever its structure."""
    names = []
    for node in program.find("placeholder"):
        variables.names[node] = scope.bind(node.name, -1, variables.last_use(node))
        names.append(variables.names[node])
    tensors = f"({names[0]},)" if len(names) == 1 else f"({', '.join(names)})"
    split = call(f"{imports.member('autopar.emit', 'script')}.whole_model", ["self", "args", "kwargs"])
    return [
        "def forward(self, *args, **kwargs):",
        *text,
        *render(split, indent=_INDENT, before=f"whole, {tensors if names else '_'} = "),
    ]


def _opaque(program: Program, imports: Imports, text: list[str]) -> list[str]:
    inside = "; the functions above stand for submodules inside of it" if program.islands else ""
    script = imports.member("autopar.emit", "script")
    return [
        "def forward(self, *args, **kwargs):",
        *text,
        f"{_INDENT}# The whole model is one opaque call{inside}.",
        f"{_INDENT}return {script}.eager_forward(self, *args, **kwargs)",
    ]
