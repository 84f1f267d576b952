"""Every rank sends what the plan says, once, and nobody reads what has not arrived."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from autopar import ops
from autopar.passes.dataflow import parameter_reads
from autopar.program import Program, info

__all__ = ["every_rank_takes_part", "synced_as_planned", "waited_for"]

# Dispatcher namespaces of torch's collectives; those of the first return before the result is there.
_ASYNCHRONOUS, _WAIT = "_c10d_functional.", "_c10d_functional.wait_tensor"
_NAMESPACES = (_ASYNCHRONOUS, "_c10d_functional_autograd.", "c10d.", "c10d_functional.")


def synced_as_planned(program: Program) -> Iterator[str]:
    """Each bucket has one node, which carries its parameters in order and lies before all of their uses."""
    if program.plan is None or "synced" not in program.provides:
        return
    nodes: dict[object, list[fx.Node]] = {}
    for node in program.find("call_function", ops.sync_gradients):
        nodes.setdefault(node.kwargs["bucket"], []).append(node)
    sources: dict[fx.Node, str] = dict(parameter_reads(program))
    sources |= zip(program.find("placeholder"), program.lifted, strict=False)
    for bucket in program.plan.buckets:
        if bucket.route != "graph":
            continue
        found = nodes.pop(bucket.index, [])
        if len(found) != 1:
            yield f"bucket {bucket.index} has {'several nodes' if found else 'no node'}"
            continue
        (node,) = found
        carried = [sources.get(arg) for arg in node.args]  # type: ignore[arg-type]
        if tuple(carried) != bucket.parameters:
            missing = sorted(set(bucket.parameters) - set(carried))
            what = f"lacks {', '.join(missing)}" if missing else "has its parameters in another order"
            yield f"the node of bucket {bucket.index} {what}"
        if node.kwargs.get("compression", "") != bucket.compression:
            said = node.kwargs.get("compression") or "nothing"
            yield f"the node of bucket {bucket.index} says {said} of its compression, the plan {bucket.compression!r}"
        for source in node.all_input_nodes:
            stray = [user.name for user in source.users if user is not node]
            if stray:
                yield f"{sources.get(source) or source.name} is used unsynchronised by {', '.join(stray)}"
    for index in nodes:
        yield f"a node synchronises bucket {index}, which the plan does not have"
    synced = {name for bucket in program.plan.buckets if bucket.route == "graph" for name in bucket.parameters}
    for source, name in sources.items():
        if name in synced and source.users and not any(_is_sync(user) for user in source.users):
            yield f"{name} is read past its bucket by {', '.join(user.name for user in source.users)}"


def every_rank_takes_part(program: Program) -> Iterator[str]:
    """No collective stands where another rank may not come: in a branch, in a question, in a graph for some sizes."""
    inner = {str(node.target): _fetched(program, node) for node in program.find("get_attr")}
    nested = {f"the nested graph {name!r}": module for name, module in inner.items()}
    nested["the questions about inputs"] = program.guards.questions
    for place, module in nested.items():
        for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
            if _is_collective(node):
                yield f"{node.name} is a collective in {place}, which some ranks may not run"
    if program.guards.none:
        return
    for node in program.graph.nodes:  # one bucket more or less is seen by another rule
        if _is_collective(node) and not _is_sync(node) and info(node).created_by != "capture":
            yield f"{node.name} is a collective in a graph that rests on its inputs, so other ranks may run another one"


def waited_for(program: Program) -> Iterator[str]:
    """The result of an asynchronous collective goes through a wait before anything else."""
    for node in program.find("call_function"):
        if not _name(node).startswith(_ASYNCHRONOUS) or _name(node).startswith(_WAIT):
            continue
        for user in node.users:
            if not _name(user).startswith(_WAIT):
                yield f"{user.name} uses {node.name} before a wait"
        if not node.users:
            yield f"{node.name} is never waited for"


def _is_sync(node: fx.Node) -> bool:
    return node.target is ops.sync_gradients


def _is_collective(node: fx.Node) -> bool:
    if node.op != "call_function":
        return False
    module = getattr(node.target, "__module__", None) or ""
    return _is_sync(node) or module.startswith("torch.distributed") or _name(node).startswith(_NAMESPACES)


def _name(node: fx.Node) -> str:
    """Name of an operator of the dispatcher, such as ``"aten.add.Tensor"``; the node's target otherwise."""
    return str(node.target)


def _fetched(program: Program, node: fx.Node) -> object:
    owner, _, name = str(node.target).rpartition(".")
    return getattr(program.graph_module.get_submodule(owner), name)
