"""Turns reads of parameters and buffers into arguments, so that running touches no module tree."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx

from autopar.passes.base import PassContext, PassResult
from autopar.program import Program, Remark

__all__ = ["LiftParameters"]


@dataclass(frozen=True, slots=True)
class LiftParameters:
    """Replaces each ``get_attr`` of a tensor by an input in front of the others.

    The runtime fills these inputs from the user's module at every call, which costs one dictionary
    look-up each, where ``nn.Module.__getattr__`` costs a Python call for every dot of the path.
    """

    name: ClassVar[str] = "lift-parameters"
    requires: ClassVar[frozenset[str]] = frozenset({"captured"})
    provides: ClassVar[frozenset[str]] = frozenset({"lifted"})
    on_islands: ClassVar[bool] = True

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Lifts; ``program.lifted`` names what the first inputs are."""
        reads: dict[str, list[fx.Node]] = {}
        canonical = {id(tensor): name for name, tensor in program.model.named_parameters()}
        for node in program.find("get_attr"):
            owner, _, name = str(node.target).rpartition(".")
            value = getattr(program.graph_module.get_submodule(owner), name)
            if isinstance(value, torch.Tensor):  # tied parameters are one input, under their first name
                reads.setdefault(canonical.get(id(value), str(node.target)), []).append(node)
        first = next(iter(program.graph.nodes))  # the program's own inputs follow
        for nodes in reads.values():
            with program.graph.inserting_before(first):
                placeholder = program.graph.placeholder(f"{nodes[0].name}_")
            placeholder.meta = dict(nodes[0].meta)
            for node in nodes:
                node.replace_all_uses_with(placeholder)
                program.graph.erase_node(node)
        lifted = dataclasses.replace(program, lifted=tuple(reads))
        count = sum(map(len, reads.values()))
        remark = Remark(
            code="AP212",
            kind="passed",
            stage=self.name,
            message=f"{count} reads of parameters and buffers became {len(reads)} inputs of the graph.",
        )
        return PassResult(lifted, changed=bool(reads), remarks=(remark,), counters={"tensors lifted": len(reads)})
