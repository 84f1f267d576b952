"""The plan is whole, and in an order that backward can keep."""

from __future__ import annotations

from collections.abc import Iterator

from autopar.program import Program, info

__all__ = ["annotated_buckets", "one_kind", "planned_once", "ready_order_kept"]


def planned_once(program: Program) -> Iterator[str]:
    """Every trainable parameter is in one bucket, or declared local and without a gradient."""
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


def one_kind(program: Program) -> Iterator[str]:
    """What travels in one message is of one dtype, device, layout and route."""
    if program.plan is None:
        return
    specs = {spec.name: spec for spec in program.plan.parameters}
    for bucket in program.plan.buckets:
        kind = (bucket.dtype, bucket.device, bucket.layout, bucket.route)
        for name in bucket.parameters:
            if name in specs and specs[name].key != kind:
                yield f"bucket {bucket.index} is {'/'.join(kind)} and holds {name!r}, {'/'.join(specs[name].key)}"


def ready_order_kept(program: Program) -> Iterator[str]:
    """No bucket waits for one that is ready later."""
    if program.plan is None or not program.ready_order:
        return
    position = {name: index for index, name in enumerate(program.ready_order)}
    last = [max((position.get(name, -1) for name in bucket.parameters), default=-1) for bucket in program.plan.buckets]
    for index in range(1, len(last)):
        if last[index] < last[index - 1]:
            yield f"bucket {index} is ready before bucket {index - 1} but launched after it"


def annotated_buckets(program: Program) -> Iterator[str]:
    """What a node says of its bucket is true."""
    known = {bucket.index for bucket in program.plan.buckets} if program.plan else set()
    for node in program.graph.nodes:
        index = info(node).bucket
        if index is not None and index not in known:
            yield f"node {node.name} is annotated with bucket {index}, which the plan does not have"
