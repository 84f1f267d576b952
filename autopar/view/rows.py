"""Reads a graph document as rows: one a module, in the order in which forward reaches them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autopar.view.operations import Operation, operations, spec_bytes

__all__ = ["ModuleRow", "launch_rows", "merged", "module_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleRow:
    """What the operations of one module come to.

    Attributes:
        path: dotted path of the module; ``""`` is the root's own operations.
        kinds: what the operations are, each once, the most expensive first.
        count: number of operations.
        flops: of one forward.
        backward_flops: estimated for one backward: as much as forward for the gradient of the input,
            where one is needed, and as much again for that of the parameters.
        param_bytes: of the trainable parameters that the module owns.
        output_bytes: of all tensors that the operations make.
        opaque: whether one of the operations is opaque.
        recomputed: whether backward computes one of the operations again (activation checkpointing).
        buckets: where the module's gradients travel, in launch order.
    """

    path: str
    kinds: tuple[str, ...]
    count: int
    flops: int
    backward_flops: int
    param_bytes: int
    output_bytes: int
    opaque: bool
    recomputed: bool
    buckets: tuple[int, ...]


def module_rows(document: Mapping[str, Any], run: Sequence[Operation] | None = None) -> list[ModuleRow]:
    """The rows of the transformed graph.

    Args:
        document: see ``autopar.view.graph_json``.
        run: its operations, where they are there already.
    """
    found: dict[str, list[Operation]] = {}
    for operation in operations(document) if run is None else run:
        if not operation.sync and operation.node["op"] not in ("placeholder", "output"):
            found.setdefault(operation.node["module"], []).append(operation)
    plan = document["plan"] or {"parameters": [], "buckets": []}
    bucket_of = {name: bucket["index"] for bucket in plan["buckets"] for name in bucket["parameters"]}
    owned: dict[str, list[Mapping[str, Any]]] = {}
    for spec in plan["parameters"]:
        owned.setdefault(_owner(spec["name"], found), []).append(spec)
    rows: list[ModuleRow] = []
    differentiated = False  # whether a gradient flows into the module's input
    for path in dict.fromkeys([*found, *owned]):
        inside, specs = found.get(path, []), owned.get(path, ())
        nodes = [one.node for one in inside]
        again = [one.node["flops"] for one in inside if one.recomputed]
        flops = sum([node["flops"] for node in nodes])
        rows.append(
            ModuleRow(
                path=path,
                kinds=tuple(dict.fromkeys(map(_kind, sorted(nodes, key=_weight, reverse=True)))),
                count=len(nodes),
                flops=flops,
                backward_flops=_backward(flops, differentiated, bool(specs)) + sum(again),
                param_bytes=sum([spec_bytes(spec) for spec in specs]),
                output_bytes=sum([node["bytes"] for node in nodes]),
                opaque=any(node["opaque"] for node in nodes),
                recomputed=bool(again),
                buckets=tuple(sorted({bucket_of[s["name"]] for s in specs if s["name"] in bucket_of})),
            )
        )
        differentiated = differentiated or bool(specs)
    return rows


def launch_rows(document: Mapping[str, Any], rows: Sequence[ModuleRow]) -> dict[int, int]:
    """Maps each bucket to the row whose backward completes it: that of its last ready parameter."""
    position = {row.path: index for index, row in enumerate(rows)}
    buckets = (document["plan"] or {"buckets": []})["buckets"]
    return {bucket["index"]: position[_owner(bucket["parameters"][-1], position)] for bucket in buckets}


def merged(rows: Sequence[ModuleRow]) -> ModuleRow:
    """Several rows as one: what is counted is added up, the rest is that of all of them."""
    if len(rows) == 1:
        return rows[0]
    ranked = sorted(rows, key=lambda row: -row.flops)
    return ModuleRow(
        path=rows[0].path,
        kinds=tuple(dict.fromkeys(kind for row in ranked for kind in row.kinds)),
        count=sum(row.count for row in rows),
        flops=sum(row.flops for row in rows),
        backward_flops=sum(row.backward_flops for row in rows),
        param_bytes=sum(row.param_bytes for row in rows),
        output_bytes=sum(row.output_bytes for row in rows),
        opaque=any(row.opaque for row in rows),
        recomputed=any(row.recomputed for row in rows),
        buckets=tuple(sorted({bucket for row in rows for bucket in row.buckets})),
    )


def _owner(parameter: str, rows: Mapping[str, Any]) -> str:
    """The row that a parameter belongs to: its module's, or the nearest around it that has one."""
    owner = module = parameter.rpartition(".")[0]
    while module and module not in rows:
        module = module.rpartition(".")[0]
    return module if module in rows else owner


def _weight(node: Mapping[str, Any]) -> tuple[int, int]:
    """What makes an operation expensive: FLOPs first, then the bytes that it writes."""
    return node["flops"], node["bytes"]


def _kind(node: Mapping[str, Any]) -> str:
    return str(node["class"] or str(node["target"]).rpartition(".")[2])


def _backward(flops: int, differentiated: bool, trained: bool) -> int:
    if trained:
        return flops * (1 + differentiated)
    return 2 * flops if differentiated else 0  # products of two activations, as in attention
