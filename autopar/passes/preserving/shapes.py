"""Annotates every node with what it really computed: shape, dtype, device, bytes and FLOPs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import fx, nn

from autopar import compat
from autopar.capture.aliasing import written_reads
from autopar.capture.call import fresh
from autopar.capture.effects import NotRunError, without_effects
from autopar.capture.state import preserved
from autopar.passes.base import PassContext, PassResult
from autopar.passes.dataflow import attribute
from autopar.program import Program, Remark, annotate

__all__ = ["Shapes"]


@dataclass(frozen=True, slots=True)
class Shapes:
    """Runs one forward on the example inputs and writes down what it sees.

    Real tensors and not fake ones, because opaque regions may be anything; with gradients enabled,
    because a forward may ask for them. FLOPs are those of ``torch.utils.flop_counter``: matrix
    products, convolutions and attention.
    """

    name: ClassVar[str] = "shapes"
    requires: ClassVar[frozenset[str]] = frozenset({"captured"})
    provides: ClassVar[frozenset[str]] = frozenset({"shapes"})
    on_islands: ClassVar[bool] = True

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Annotates; the graph stays as it is."""
        if not program.signature.complete:
            return self._unknown(program, "the call has arguments that are not kept, so it cannot be run")
        recorder = _Recorder(program)
        state = preserved(_changeable(program))
        try:
            with without_effects(), state, torch.inference_mode(False), torch.enable_grad(), recorder.counter:
                recorder.run(*fresh(program.example))
        except NotRunError as error:
            return self._unknown(program, f"its forward was not run to the end, because {error}")
        message = f"One forward takes {recorder.counter.total:,} FLOPs."
        remark = Remark(code="AP204", kind="analysis", stage=self.name, message=message)
        return PassResult(program, changed=False, remarks=(remark,))

    def _unknown(self, program: Program, reason: str) -> PassResult:
        message = f"Shapes and FLOPs are unknown: {reason}."
        remark = Remark(code="AP205", kind="missed", stage=self.name, message=message)
        return PassResult(program, changed=False, remarks=(remark,))


def _changeable(program: Program) -> nn.Module:
    """The modules that running the program may change; few operations change one (capture saw to that)."""
    if program.front_end == "opaque":
        return program.model
    targets = {str(node.target) for node in program.graph.nodes if node.op in ("call_module", "get_attr")}
    targets |= {name.rpartition(".")[0] for name in written_reads(program.graph)}
    found = [attribute(program.graph_module, target) for target in targets]
    return nn.ModuleList(module for module in found if isinstance(module, nn.Module))


class _Recorder(fx.Interpreter):
    def __init__(self, program: Program) -> None:
        super().__init__(program.graph_module)
        self.program, self.counter = program, compat.FlopCounter()
        self.extra_traceback = False

    def run_node(self, n: fx.Node) -> Any:
        before = self.counter.total
        args, kwargs = self.fetch_args_kwargs_from_env(n)  # as the base class does, but for its note of the node
        result = getattr(self, n.op)(n.target, args, kwargs)
        leaves = [result] if isinstance(result, torch.Tensor) else compat.tree_flatten(result)[0]
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        changes: dict[str, Any] = {"flops": self.counter.total - before}
        if n.op != "output":
            changes["nbytes"] = sum(t.numel() * t.element_size() for t in tensors)
        if isinstance(result, torch.Tensor) and not result.is_nested:  # which has no one shape
            changes |= {
                "shape": tuple(result.shape),
                "dtype": str(result.dtype).removeprefix("torch."),
                "device": result.device.type,
            }
        if isinstance(result, nn.Parameter) and result.requires_grad:
            changes["param_bytes"] = changes["nbytes"]
        if n.op == "call_module":
            owner = self.fetch_attr(str(n.target))
            changes["param_bytes"] = sum(p.numel() * p.element_size() for p in owner.parameters() if p.requires_grad)
        annotate(n, **changes)
        return result

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls a region as it is; the root without its hooks, which belong to the user's own calls."""
        if self.program.front_end != "opaque":
            return super().call_module(target, args, kwargs)
        model = self.program.model
        args, kwargs = self.program.signature.call(args)
        if "forward" in vars(model):
            return model.forward(*args, **kwargs)
        return compat.original_class(model).forward(model, *args, **kwargs)
