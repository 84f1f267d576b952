"""Finds the order in which gradients become ready."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from autopar.partitioner.order import backward_ready_order, observed_order, unreachable_parameters
from autopar.passes.base import PassContext, PassResult
from autopar.passes.dataflow import dataflow
from autopar.program import Program, Remark

__all__ = ["BackwardOrder"]


@dataclass(frozen=True, slots=True)
class BackwardOrder:
    """Records the order of one eager backward, or plays autograd's scheduler where capture ran none.

    Played, the order of what one operation completes together, and of all that is inside an opaque
    region, is a guess; seen, it is what happens.
    """

    name: ClassVar[str] = "backward-order"
    requires: ClassVar[frozenset[str]] = frozenset({"captured"})
    provides: ClassVar[frozenset[str]] = frozenset({"backward-order"})

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Sets ``program.ready_order``; says which parameters can get no gradient."""
        dag = dataflow(program)
        order = observed_order(backward_ready_order(dag), program.arrivals)
        ordered = dataclasses.replace(program, ready_order=tuple(order))
        trainable = program.trainable()
        unused = tuple(
            Remark(
                code="AP207",
                kind="analysis",
                stage=self.name,
                message=f"{name} gets no gradient: no path leads from it to an output.",
                module_path=name.rpartition(".")[0],
                mend="Remove it, or freeze it with requires_grad_(False).",
                nbytes=trainable[name].numel() * trainable[name].element_size(),
            )
            for name in unreachable_parameters(dag)
            if name not in program.arrivals
        )
        return PassResult(ordered, changed=False, remarks=(_origin(program, len(order)), *unused))


def _origin(program: Program, count: int) -> Remark:
    """Whether the order was seen or is a guess: what the plan is worth depends on it."""
    seen = len(program.arrivals)
    how = f"{seen} were seen to arrive in one eager backward; autograd's rules place the other {count - seen}"
    return Remark(
        code="AP206",
        kind="analysis",
        stage=BackwardOrder.name,
        message=f"Of {count} gradients, {how}.",
    )
