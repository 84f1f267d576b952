"""Programs made by hand, for what no front end captures."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import fx, nn

from autopar import compat
from autopar.program import Program, Signature


def program_of(model: nn.Module, graph: fx.Graph, args: tuple[Any, ...]) -> Program:
    """A program around a graph that returns one tensor; the graph is never compiled by fx."""
    (output,) = graph.find_nodes(op="output")
    if isinstance(output.args[0], fx.Node):
        output.args = ((output.args[0],),)
    signature = Signature(
        in_spec=compat.tree_flatten((args, {}))[1],
        constants={},
        inputs=tuple(node.name for node in graph.find_nodes(op="placeholder")),
        out_spec=compat.tree_flatten(0)[1],
    )
    return Program(
        graph_module=SimpleNamespace(graph=graph),  # type: ignore[arg-type]
        model=model,
        signature=signature,
        front_end="symbolic",
        example=args,
    )


class Unary(nn.Module):
    """One input and one parameter: a home for graphs made by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Never called: the graphs stand for it."""
        return x * self.weight


def unary(build: Any) -> Program:
    """A program of ``Unary`` whose body ``build(graph, x, weight)`` makes; it returns the result node."""
    graph = fx.Graph()
    x, weight = graph.placeholder("x"), graph.get_attr("weight")
    graph.output(build(graph, x, weight))
    return program_of(Unary(), graph, (torch.ones(3, 4),))
