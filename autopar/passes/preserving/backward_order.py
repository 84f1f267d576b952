"""Finds the order in which gradients become ready, before any backward has run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from autopar.partitioner.order import backward_ready_order, unreachable_parameters
from autopar.passes.base import PassContext, PassResult
from autopar.passes.dataflow import dataflow
from autopar.program import Program, Remark

__all__ = ["BackwardOrder"]


@dataclass(frozen=True, slots=True)
class BackwardOrder:
    """Plays autograd's scheduler over the graph and records the order on the program."""

    name: ClassVar[str] = "backward-order"
    requires: ClassVar[frozenset[str]] = frozenset({"captured"})
    provides: ClassVar[frozenset[str]] = frozenset({"backward-order"})

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Sets ``program.ready_order``; says which parameters can get no gradient."""
        dag = dataflow(program)
        ordered = dataclasses.replace(program, ready_order=tuple(backward_ready_order(dag)))
        trainable = program.trainable()
        remarks = tuple(
            Remark(
                kind="analysis",
                stage=self.name,
                message=f"{name} gets no gradient: no path leads from it to an output.",
                module_path=name.rpartition(".")[0],
                mend="Remove it, or freeze it with requires_grad_(False).",
                nbytes=trainable[name].numel() * trainable[name].element_size(),
            )
            for name in unreachable_parameters(dag)
        )
        return PassResult(ordered, changed=False, remarks=remarks)
