"""Parts of a program that are run as one call: activation checkpoints.

In a Program the operations of such a region are ordinary nodes, annotated with its name, so that
every pass sees them. What runs and what is printed has the region as a graph of its own, called by
``torch.utils.checkpoint.checkpoint``: ``outlined`` makes that form.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence

from torch import fx
from torch.utils.checkpoint import checkpoint

from autopar import compat
from autopar.program import NodeInfo, Program, Region, annotate, info

__all__ = ["outlined", "region_modules"]


def outlined(program: Program) -> Program:
    """The program with each region as a graph of its own, those of its islands too; itself where it has none.

    What stands between the nodes of a region and does not depend on them (a node that synchronises
    gradients, say) comes before the region, so that recomputing does not run it again.
    """
    program = program.with_islands(outlined) if program.islands else program
    if not program.regions:
        return program
    program = program.snapshot()
    for name, region in program.regions.items():
        members = [node for node in program.graph.nodes if info(node).region == name and node.op.startswith("call_")]
        if members:
            _outline(program, name, region, members)
    program.graph_module.recompile()
    return dataclasses.replace(program, regions={})


def region_modules(module: fx.GraphModule) -> dict[str, fx.GraphModule]:
    """The graphs of an outlined program's regions, by the name under which its graph reads them."""
    calls = module.graph.find_nodes(op="call_function", target=checkpoint)
    targets = [str(node.args[0].target) for node in calls]
    return {target: getattr(module, target) for target in targets}


def _outline(program: Program, name: str, region: Region, members: Sequence[fx.Node]) -> None:
    graph, first = program.graph, members[0]
    inside = _closed(members)
    inputs = list(dict.fromkeys(source for node in inside for source in node.all_input_nodes if source not in inside))
    outputs = [node for node in inside if any(user not in inside for user in node.users)]
    body = fx.Graph()
    copies = {source: body.placeholder(source.name) for source in inputs}
    for source, placeholder in copies.items():
        placeholder.meta = dict(source.meta)
    for node in inside:
        copies[node] = annotate(body.node_copy(node, copies.__getitem__), region="")
    body.output(tuple(copies[node] for node in outputs) if len(outputs) != 1 else copies[outputs[0]])
    target = _free_name(program.graph_module, name)
    program.graph_module.add_submodule(target, compat.graph_module(program.graph_module, body, name))
    marked = NodeInfo(module_path=region.module_path, source=region.source, created_by="outline")
    with graph.inserting_before(first):
        function = graph.get_attr(target)
        call = graph.call_function(checkpoint, (function, *inputs), {"use_reentrant": False, **region.settings})
        results = (
            [call]
            if len(outputs) == 1
            else [graph.call_function(operator.getitem, (call, index)) for index in range(len(outputs))]
        )
    function.meta["autopar"] = call.meta["autopar"] = marked
    for output, result in zip(outputs, results, strict=True):
        result.meta = dict(output.meta)
        annotate(result, region="", module_path=region.module_path, source=region.source)
        output.replace_all_uses_with(result, delete_user_cb=lambda user: user not in inside)
    for node in reversed(inside):
        graph.erase_node(node)


def _closed(members: Sequence[fx.Node]) -> list[fx.Node]:
    """The region's nodes in order, with those between them that depend on them and that they depend on.

    Other nodes between them are moved: before the region, or, where they depend on it, left after it.
    """
    between, node = [], members[0]
    while node is not members[-1]:
        between.append(node)
        node = node.next
    between.append(node)
    wanted, inside = set(members), set(members)
    for node in between:
        if node not in inside and any(source in inside for source in node.all_input_nodes):
            inside.add(node)
    for node in reversed(between):
        if node in inside and any(user in wanted for user in node.users):
            wanted.add(node)
    for node in between:
        if node not in inside:
            members[0].prepend(node)
    return [node for node in between if node in wanted]


def _free_name(module: fx.GraphModule, name: str) -> str:
    while hasattr(module, name):
        name += "_"
    return name
