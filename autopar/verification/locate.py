"""Names the first operation of a transformed program whose result is not that of the captured one."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from autopar.attach import attachment_of
from autopar.capture.state import preserved
from autopar.program import Program, info
from autopar.verification.comparison import unequal
from autopar.verification.training import Call

__all__ = ["first_difference"]


def first_difference(model: nn.Module, call: Call, seed: int) -> str:
    """Runs both programs operation by operation from one state, without gradients.

    Args:
        model: a parallel module that has compiled its program.
        call: what to run them on.
        seed: of the random streams.

    Returns:
        The operation with its place, or "" where none differs, or nothing is there to compare.
    """
    attachment = attachment_of(model)
    compilation = None if attachment is None else attachment.compilation
    if compilation is None or compilation.program.signature.out_spec is None:
        return ""
    before, after = _Results(compilation.before), _Results(compilation.program)
    for each in (before, after):
        with preserved(model, seed=seed), torch.no_grad():
            each.run(*compilation.program.signature.flatten(*call))
    for key, (node, value) in after.found.items():
        known = before.found.get(key)
        if known is not None and _differ(known[1], value):
            source = f" ({info(node).source})" if info(node).source is not None else ""
            return f"{node.name!r}{source}"
    return ""


class _Results(fx.Interpreter):
    """Runs a program and keeps every tensor by what both programs call it: a name, or a module's path."""

    def __init__(self, program: Program) -> None:
        super().__init__(program.graph_module)
        self.found: dict[str, tuple[fx.Node, torch.Tensor]] = {}

    def run_node(self, n: fx.Node) -> Any:
        """The node's result, kept."""
        value = super().run_node(n)
        if isinstance(value, torch.Tensor) and n.op in ("call_function", "call_method", "call_module"):
            kept = (n, value.clone())
            if n.op == "call_module" or info(n).created_by == "inline-modules":
                self.found.pop(info(n).module_path, None)  # of an opened module the last operation is its result
                self.found[info(n).module_path] = kept
            else:
                self.found[n.name] = kept
        return value


def _differ(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype or one.layout != torch.strided:
        return one.shape != other.shape or one.dtype != other.dtype
    return bool(unequal(one, other).any())
