"""Programs under ``torch.compile``: one graph, with the all-reduce of every bucket inside it.

A compiler sees operations and no runtime. So each ``ops.sync_gradients`` node is replaced by one whose
backward is operations only: concatenate and scale, all-reduce as a functional collective, split. The
buckets are those of the plan, and stand in the graph before the compiler orders it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import fx

from autopar import compat, ops
from autopar.errors import LaunchError
from autopar.program import Program, info

__all__ = ["CompiledProgram", "compile_function", "reduce_gradients"]

_Forward = Callable[..., Any]
_functional = compat.functional_collectives()


class CompiledProgram:
    """The two compiled forms of a lowered program, each made when it is first called.

    Args:
        program: a lowered program with a plan.
        group: the ranks; None where there is only this process.
        settings: keyword arguments of ``torch.compile``.

    Attributes:
        synced: runs the program; the gradients of its graph buckets are means over the ranks.
        local: runs the program; gradients are this rank's own.
        carries: whether ``synced`` reduces every bucket of the graph route: sparse gradients it cannot.
    """

    def __init__(self, program: Program, group: dist.ProcessGroup | None, settings: Mapping[str, Any]) -> None:
        assert program.plan is not None, "a lowered program has a plan"
        whole = not any(info(node).opaque for node in program.graph.nodes)
        compiled = functools.partial(compile_function, settings=settings, fullgraph=whole)
        self.carries = group is not None and all(
            bucket.layout == "strided" and not bucket.compression
            for bucket in program.plan.buckets
            if bucket.route == "graph"
        )
        self.local = compiled(compat.compiled_forward(_without_nodes(program)))
        self.synced = self.local
        if group is not None:
            self.synced = compiled(compat.compiled_forward(_with_collectives(program, group)))


def compile_function(function: _Forward, *, settings: Mapping[str, Any], fullgraph: bool) -> _Forward:
    """``torch.compile`` of a function, with one sentence where this machine cannot compile.

    Args:
        function: what to compile.
        settings: keyword arguments of ``torch.compile``, which count before the others.
        fullgraph: refuse to break the graph.

    Returns:
        The compiled function, which raises LaunchError where there is no compiler to make it.
    """
    compiled: _Forward = torch.compile(function, **{"fullgraph": fullgraph, **settings})

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return compiled(*args, **kwargs)
        except Exception as error:
            if compat.lacks_compiler(error):
                raise LaunchError(
                    "compile=True needs a C++ compiler, and this machine has none that works.",
                    why=str(error).strip().split("\n", 1)[0],
                    mend="Install g++, or set CXX to a compiler, or leave compile=True out.",
                ) from error
            raise

    return run


def reduce_gradients(*parameters: torch.Tensor, group: str, scale: float) -> Sequence[torch.Tensor]:
    """Identity in forward; in backward the gradients are all-reduced in one message, by operations only.

    Args:
        parameters: the bucket's parameters, of one dtype and device.
        group: name of the process group.
        scale: factor on each gradient before the sum; 1 / world size makes it a mean.
    """
    reduced: Sequence[torch.Tensor] = _Reduced.apply(group, scale, *parameters)
    return reduced


class _Reduced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, group: str, scale: float, *parameters: torch.Tensor) -> Any:
        ctx.group, ctx.scale = group, scale
        return tuple([parameter.view_as(parameter) for parameter in parameters])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients]) * ctx.scale
        flat = _functional.wait_tensor(_functional.all_reduce(flat, "sum", ctx.group))
        parts = flat.split([gradient.numel() for gradient in gradients])
        return (
            None,
            None,
            *(part.view(gradient.shape) for part, gradient in zip(parts, gradients, strict=True)),
        )


def _with_collectives(program: Program, group: dist.ProcessGroup) -> fx.GraphModule:
    scale = 1.0 / dist.get_world_size(group)
    assert program.plan is not None
    strided = {bucket.index for bucket in program.plan.buckets if bucket.layout == "strided"}
    copy = program.snapshot()
    for node in copy.graph.find_nodes(op="call_function", target=ops.sync_gradients):
        if node.kwargs["bucket"] in strided:
            with copy.graph.inserting_before(node):
                named: dict[str, Any] = {"group": group.group_name, "scale": scale}
                node.replace_all_uses_with(copy.graph.call_function(reduce_gradients, node.args, named))
            copy.graph.erase_node(node)
    copy.graph_module.recompile()
    return copy.graph_module


def _without_nodes(program: Program) -> fx.GraphModule:
    """The program with parameters going straight to their uses, as if nothing were to be synchronised."""
    copy = program.snapshot()
    for node in copy.graph.find_nodes(op="call_function", target=ops.sync_gradients):
        for taken in list(node.users):
            taken.replace_all_uses_with(node.args[taken.args[1]])
            copy.graph.erase_node(taken)
        copy.graph.erase_node(node)
    copy.graph_module.recompile()
    return copy.graph_module
