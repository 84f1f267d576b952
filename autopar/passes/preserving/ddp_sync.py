"""Puts one node between each bucket's parameters and their uses: the all-reduce in backward."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import fx, nn

from autopar import ops
from autopar.partitioner.plan import BucketSpec
from autopar.passes.base import PassContext, PassResult
from autopar.passes.dataflow import parameter_reads
from autopar.program import NodeInfo, Program, Remark, annotate

__all__ = ["DDPSync"]


@dataclass(frozen=True, slots=True)
class DDPSync:
    """Inserts ``ops.sync_gradients`` for every bucket whose parameters are edges of the graph.

    The node stands right before the first use of any of the bucket's parameters, not at the top:
    autograd runs ready nodes latest-created first, so a node made at the top would wait for the
    whole backward although its gradients are complete (seen on torch 2.13: all buckets last).
    """

    name: ClassVar[str] = "ddp-sync"
    requires: ClassVar[frozenset[str]] = frozenset({"buckets", "inlined"})
    provides: ClassVar[frozenset[str]] = frozenset({"synced"})

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Rewrites the graph in place."""
        assert program.plan is not None, "the contract promises a plan"
        reads: dict[str, list[fx.Node]] = {}
        for node, name in parameter_reads(program).items():
            reads.setdefault(name, []).append(node)
        buckets = [bucket for bucket in program.plan.buckets if bucket.route == "graph"]
        order = {node: index for index, node in enumerate(program.graph.nodes)}
        for bucket in reversed(buckets):  # so that of nodes before one use the bucket that is ready first is nearest
            _insert(program, bucket, reads, order)
        nodes, hooks = len(buckets), len(program.plan.buckets) - len(buckets)
        remark = Remark(
            code="AP211",
            kind="passed",
            stage=self.name,
            message=f"{nodes} buckets are reduced by nodes of the graph, {hooks} by hooks of opaque regions.",
        )
        return PassResult(
            program,
            changed=bool(buckets),
            remarks=(remark,),
            counters={"nodes that synchronise": nodes, "buckets of hooks": hooks},
        )


def _insert(program: Program, bucket: BucketSpec, reads: dict[str, list[fx.Node]], order: dict[fx.Node, int]) -> None:
    (output,) = program.find("output")
    for name in bucket.parameters:
        if name not in reads:  # another branch of the model uses it: here its gradient is zero
            _hold(program, name)
            with program.graph.inserting_before(output):
                reads[name] = [program.graph.get_attr(name)]
    members = [reads[name] for name in bucket.parameters]
    users = [user for nodes in members for node in nodes for user in node.users]
    first = min(users, key=order.__getitem__, default=output)
    with program.graph.inserting_before(first):
        sources = []
        for nodes in members:
            source = nodes[0]
            first.prepend(source)
            sources.append(source)
        sync = program.graph.call_function(ops.sync_gradients, tuple(sources), _keywords(bucket))
        sync.meta["autopar"] = NodeInfo(bucket=bucket.index, param_bytes=bucket.nbytes, nbytes=bucket.nbytes)
        for index, nodes in enumerate(members):
            name = nodes[0].name
            synced = program.graph.create_node("call_function", operator.getitem, (sync, index), name=name)
            synced.meta["autopar"] = nodes[0].meta.get("autopar", NodeInfo())
            annotate(synced, bucket=bucket.index, created_by="ddp-sync", param_bytes=0)
            for node in nodes:
                annotate(node, bucket=bucket.index)
                node.replace_all_uses_with(synced, delete_user_cb=lambda user: user is not sync)
            for extra in nodes[1:]:
                program.graph.erase_node(extra)


def _keywords(bucket: BucketSpec) -> dict[str, Any]:
    return {"bucket": bucket.index} | ({"compression": bucket.compression} if bucket.compression else {})


def _hold(program: Program, name: str) -> None:
    """Gives the graph module a parameter of the model that no node has read so far."""
    path, _, key = name.rpartition(".")
    try:
        owner = program.graph_module.get_submodule(path)
    except AttributeError:
        program.graph_module.add_submodule(path, nn.Module())
        owner = program.graph_module.get_submodule(path)
    owner.register_parameter(key, program.model.get_parameter(name))
