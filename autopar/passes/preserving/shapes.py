"""Annotates every node with what it really computed: shape, dtype, device, bytes and FLOPs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from autopar import compat
from autopar.capture.state import preserved
from autopar.passes.base import PassContext, PassResult
from autopar.program import Program, Remark, annotate

__all__ = ["Shapes"]


@dataclass(frozen=True, slots=True)
class Shapes:
    """Runs the program once on its example inputs, without gradients, and writes down what it sees.

    Real tensors and not fake ones, because opaque regions may be anything. FLOPs are those of
    ``torch.utils.flop_counter``: matrix products, convolutions and attention.
    """

    name: ClassVar[str] = "shapes"
    requires: ClassVar[frozenset[str]] = frozenset({"captured"})
    provides: ClassVar[frozenset[str]] = frozenset({"shapes"})

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Annotates; the graph stays as it is."""
        with preserved(program.model), torch.no_grad(), FlopCounterMode(display=False) as counter:
            _Recorder(program.graph_module, counter).run(*program.example)
        total = counter.get_total_flops()
        remark = Remark(kind="analysis", stage=self.name, message=f"One forward takes {total:,} FLOPs.")
        return PassResult(program, changed=False, remarks=(remark,))


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, counter: FlopCounterMode) -> None:
        super().__init__(module)
        self.counter = counter
        self.extra_traceback = False

    def run_node(self, n: fx.Node) -> Any:
        before = self.counter.get_total_flops()
        result = super().run_node(n)
        tensors = [leaf for leaf in compat.tree_flatten(result)[0] if isinstance(leaf, torch.Tensor)]
        changes: dict[str, Any] = {"flops": self.counter.get_total_flops() - before}
        if n.op != "output":
            changes["nbytes"] = sum(t.numel() * t.element_size() for t in tensors)
        if isinstance(result, torch.Tensor):
            changes |= {
                "shape": tuple(result.shape),
                "dtype": str(result.dtype).removeprefix("torch."),
                "device": result.device.type,
            }
        if isinstance(result, nn.Parameter) and result.requires_grad:
            changes["param_bytes"] = changes["nbytes"]
        if n.op == "call_module":
            owner = self.fetch_attr(str(n.target))
            changes["param_bytes"] = sum(
                p.numel() * p.element_size() for p in owner.parameters() if p.requires_grad
            )
        annotate(n, **changes)
        return result
