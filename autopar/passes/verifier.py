"""Checks a Program after every pass: a broken graph is named at the pass that broke it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import fx

from autopar import ops
from autopar.errors import InvalidProgramError
from autopar.passes.dataflow import parameter_reads
from autopar.program import Program, info

__all__ = ["RULES", "verify"]

Rule = Callable[[Program], Iterator[str]]


def verify(program: Program, *, after: str) -> None:
    """Applies every rule.

    Raises:
        InvalidProgramError: naming the pass, the rule and every offending node or parameter.
    """
    for name, rule in RULES.items():
        broken = list(rule(program))
        if broken:
            raise InvalidProgramError(
                f"After pass {after!r} the program of {program.name} breaks the rule {name!r}: {'; '.join(broken)}.",
                mend=f"This is a defect of the pass {after!r}: leave it out with --passes, and report it.",
            )


def _well_formed(program: Program) -> Iterator[str]:
    try:
        program.graph.lint()
    except RuntimeError as error:
        yield str(error).splitlines()[0].rstrip(".")


def _inputs_kept(program: Program) -> Iterator[str]:
    names = [node.name for node in program.find("placeholder")]
    lifted, inputs = names[: len(program.lifted)], names[len(program.lifted) :]
    if len(lifted) != len(program.lifted) or inputs != list(program.signature.inputs):
        expected = [*(f"{name} (lifted)" for name in program.lifted), *program.signature.inputs]
        yield f"its inputs are {', '.join(names) or 'none'} and should be {', '.join(expected) or 'none'}"


def _one_output(program: Program) -> Iterator[str]:
    count = sum(1 for _ in program.find("output"))
    if count != 1:
        yield f"it has {count} output nodes"


def _planned_once(program: Program) -> Iterator[str]:
    if program.plan is None:
        return
    places: dict[str, list[str]] = {name: [] for name in program.trainable()}
    for bucket in program.plan.buckets:
        for name in bucket.parameters:
            places.setdefault(name, []).append(f"bucket {bucket.index}")
    for local in program.plan.local:
        places.setdefault(local.name, []).append("local")
    if not program.plan.buckets and not program.plan.local:
        return  # a strategy that synchronises nothing
    trainable = program.trainable()
    for name, found in places.items():
        if name not in trainable:
            yield f"parameter {name!r} is planned, but the model trains none of that name"
        elif len(found) != 1:
            yield f"parameter {name!r} is in {' and '.join(found) or 'no bucket and not declared local'}"
        elif found == ["local"] and name in program.ready_order:
            yield f"parameter {name!r} is declared local but gets a gradient"


def _one_kind(program: Program) -> Iterator[str]:
    if program.plan is None:
        return
    specs = {spec.name: spec for spec in program.plan.parameters}
    for bucket in program.plan.buckets:
        kind = (bucket.dtype, bucket.device, bucket.layout, bucket.route)
        for name in bucket.parameters:
            if name in specs and specs[name].key != kind:
                yield f"bucket {bucket.index} is {'/'.join(kind)} and holds {name!r}, {'/'.join(specs[name].key)}"


def _ready_order_kept(program: Program) -> Iterator[str]:
    if program.plan is None or not program.ready_order:
        return
    position = {name: index for index, name in enumerate(program.ready_order)}
    last = [max((position.get(name, -1) for name in bucket.parameters), default=-1) for bucket in program.plan.buckets]
    for index in range(1, len(last)):
        if last[index] < last[index - 1]:
            yield f"bucket {index} is ready before bucket {index - 1} but launched after it"


def _synced_as_planned(program: Program) -> Iterator[str]:
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
        for source in node.all_input_nodes:
            stray = [user.name for user in source.users if user is not node]
            if stray:
                yield f"{sources.get(source) or source.name} is used unsynchronised by {', '.join(stray)}"
    for index in nodes:
        yield f"a node synchronises bucket {index}, which the plan does not have"


def _annotated_buckets(program: Program) -> Iterator[str]:
    known = {bucket.index for bucket in program.plan.buckets} if program.plan else set()
    for node in program.graph.nodes:
        index = info(node).bucket
        if index is not None and index not in known:
            yield f"node {node.name} is annotated with bucket {index}, which the plan does not have"


RULES: dict[str, Rule] = {
    "the graph is well formed": _well_formed,
    "the inputs match the signature": _inputs_kept,
    "there is one output": _one_output,
    "every trainable parameter is planned once": _planned_once,
    "a bucket holds parameters of one kind": _one_kind,
    "buckets are launched in ready order": _ready_order_kept,
    "every bucket is synchronised as planned": _synced_as_planned,
    "annotations name planned buckets": _annotated_buckets,
}
