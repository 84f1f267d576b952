"""Prints what one replica of a replicated program runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from autopar.emit.body import Body
from autopar.emit.imports import Imports
from autopar.emit.layout import Expr, call, collection, render
from autopar.emit.names import Scope, quoted
from autopar.emit.operations import Operations
from autopar.emit.regions import regions_of
from autopar.emit.script import ReplicaFunction
from autopar.emit.signature import parameter_names
from autopar.emit.variables import Variables, lay_out
from autopar.program import Program
from autopar.regions import region_modules

__all__ = ["Replica", "replica_graph"]

_INDENT = "    "


@dataclass(frozen=True, slots=True)
class Replica:
    """The graph that a program runs once for each part of the batch.

    Attributes:
        target: name under which the program reads it.
        module: the graph; its first inputs are parameters and buffers.
        program: the program around it.
    """

    target: str
    module: fx.GraphModule
    program: Program

    @property
    def name(self) -> str:
        """Name of the printed function, which no argument of the user's forward may hide."""
        name = "replica"
        while name in parameter_names(self.program):
            name += "_"
        return name

    @property
    def children(self) -> tuple[str, ...]:
        """Children of the user's model that the replica calls or reads."""
        regions = region_modules(self.module)
        graphs = [self.module.graph, *(region.graph for region in regions.values())]
        used = [node for graph in graphs for node in graph.nodes if node.op in ("call_module", "get_attr")]
        return tuple(dict.fromkeys(str(n.target).partition(".")[0] for n in used if n.target not in regions))

    def as_module(self, imports: Imports) -> Expr:
        """The expression that makes a module of the printed function."""
        arguments: list[Expr] = [self.name, "self"]
        if self.children:
            arguments.append(collection("()", map(quoted, self.children)))
        return call(f"{imports.member('autopar.emit', 'script')}.ReplicaFunction", arguments)

    def lines(self, imports: Imports, name_of: Callable[[Callable[..., Any]], str], taken: frozenset[str]) -> list[str]:
        """The printed function, ``def replica(self, ...)``."""
        graph, model = self.module.graph, self.program.model
        root: nn.Module = ReplicaFunction(_nothing, model, self.children)
        regions = regions_of(self.module, root, self.program.plan)
        special = {region.target: region.as_function(imports, "self") for region in regions}
        layout = lay_out(graph, root, special)
        scope = Scope({"self", *special, *taken})
        variables = Variables(layout, scope)
        operations = Operations(root, imports, variables.names, name_of, special=special)
        for node in graph.find_nodes(op="placeholder"):
            variables.names[node] = scope.bind(node.name.rstrip("_") or node.name, -1, variables.last_use(node))
        (output,) = graph.find_nodes(op="output")
        functions = [line for region in regions for line in (*region.lines(imports, name_of, taken), "", "")]
        return [
            *functions,
            *render(call(f"def {self.name}", ["self", *variables.names.values()]), after=":"),
            f'{_INDENT}"""What each replica computes, on its part of the batch."""',
            *Body(layout, variables, operations, model, self.program.plan).lines(),
            *render(operations.write.expression(output.args[0]), indent=_INDENT, before="return "),
        ]


def replica_graph(program: Program) -> Replica | None:
    """The nested graph of a replicated program, if it has one."""
    regions = region_modules(program.graph_module)
    for node in program.find("get_attr"):
        value = getattr(program.graph_module, str(node.target), None)
        if isinstance(value, fx.GraphModule) and node.target not in regions:
            return Replica(str(node.target), value, program)
    return None


def _nothing(self: nn.Module, *tensors: Any) -> None:
    """Stands in for the function that is being printed."""
