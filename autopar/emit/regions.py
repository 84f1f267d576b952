"""Prints the regions of a program: what runs as one call, and is computed again in backward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from autopar.emit.body import Body
from autopar.emit.imports import Imports
from autopar.emit.layout import Expr, call, render
from autopar.emit.names import Scope
from autopar.emit.operations import Operations
from autopar.emit.variables import Variables, lay_out
from autopar.partitioner.plan import Plan
from autopar.regions import region_modules

__all__ = ["Region", "regions_of"]

_INDENT = "    "


@dataclass(frozen=True, slots=True)
class Region:
    """A graph that an outlined program calls.

    Attributes:
        target: name under which the program reads it; also that of the printed function.
        module: the graph.
        root: the module that ``self`` stands for.
        plan: for the comments on buckets.
    """

    target: str
    module: fx.GraphModule
    root: nn.Module
    plan: Plan | None

    @property
    def calls_modules(self) -> bool:
        """Whether the function needs the model itself, for the modules that stay calls."""
        return bool(self.module.graph.find_nodes(op="call_module"))

    def as_function(self, imports: Imports, self_name: str) -> Expr:
        """The expression for the function that is to be checkpointed."""
        if not self.calls_modules:
            return self.target
        return call(imports.member("functools", "partial"), [self.target, self_name])

    def lines(self, imports: Imports, name_of: Callable[[Callable[..., Any]], str], taken: frozenset[str]) -> list[str]:
        """The printed function; whatever it needs is an argument, since backward calls it again."""
        graph = self.module.graph
        layout = lay_out(graph, self.root)
        scope = Scope({"self", *taken})
        variables = Variables(layout, scope)
        operations = Operations(self.root, imports, variables.names, name_of)
        for node in graph.find_nodes(op="placeholder"):
            variables.names[node] = scope.bind(node.name.rstrip("_") or node.name, -1, variables.last_use(node))
        parameters = [*(["self"] if self.calls_modules else []), *variables.names.values()]
        (output,) = graph.find_nodes(op="output")
        body = Body(layout, variables, operations, self.root, self.plan)
        returned = body.returns(output.args[0])
        lines = [
            *render(call(f"def {self.target}", parameters), after=":"),
            f'{_INDENT}"""Computed in forward, and again in backward."""',
            *body.lines(returned),
        ]
        if returned is None:
            lines += render(operations.write.expression(output.args[0]), indent=_INDENT, before="return ")
        return lines


def regions_of(module: fx.GraphModule, root: nn.Module, plan: Plan | None) -> list[Region]:
    """The regions of an outlined program, in the order in which they run."""
    return [Region(target, graph, root, plan) for target, graph in region_modules(module).items()]
