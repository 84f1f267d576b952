"""Reads a graph document as a list of operations, with the parameters that each one uses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple

__all__ = ["ROOT", "Operation", "operations", "sent_bytes", "spec_bytes"]

ROOT = "(model itself)"  # how pictures name the module that has no path

Node = Mapping[str, Any]


class Operation(NamedTuple):
    """One node that computes something.

    Attributes:
        node: the node as it is in the document.
        param_bytes: bytes of the trainable parameters that it uses.
        buckets: buckets in which their gradients travel, in launch order.
        sync: whether the node synchronises a bucket.
    """

    node: Node
    param_bytes: int
    buckets: tuple[int, ...]
    sync: bool

    @property
    def recomputed(self) -> bool:
        """Whether backward computes it again (activation checkpointing); older documents do not say."""
        return bool(self.node.get("region"))


def operations(document: Mapping[str, Any], graph: str = "after") -> list[Operation]:
    """The inputs and operations of a graph in order, without what only reads or hands out parameters.

    Args:
        document: see ``autopar.view.graph_json``.
        graph: ``"after"`` or ``"before"``.
    """
    nodes = {node["name"]: node for node in document[graph]["nodes"]}
    sync = {name for name, node in nodes.items() if node["bucket"] is not None and _is_sync(node)}
    handed = {name for name, node in nodes.items() if node["param_bytes"] and node["op"] in ("get_attr", "placeholder")}
    handed |= _handouts(nodes, document[graph]["edges"], sync)
    taken: dict[str, list[Node]] = {}
    for source, target in document[graph]["edges"]:
        if source in handed:
            taken.setdefault(target, []).append(nodes[source])
    within = _buckets_within(document) if any(node["op"] == "call_module" for node in nodes.values()) else {}
    found = []
    for name, node in nodes.items():
        op, nbytes = node["op"], node["param_bytes"]
        if op == "get_attr" or op == "output" or name in handed:
            continue
        if name in sync:
            found.append(Operation(node, nbytes, (node["bucket"],), True))
            continue
        buckets: set[int] = within.get(node["module"], set()) if op == "call_module" else set()
        if name in taken:
            nbytes += sum(one["bytes"] for one in taken[name])
            buckets = buckets | {one["bucket"] for one in taken[name] if one["bucket"] is not None}
        found.append(Operation(node, nbytes, tuple(sorted(buckets)), False))
    return found


def _buckets_within(document: Mapping[str, Any]) -> dict[str, set[int]]:
    """The buckets of each module's parameters, those of its submodules included."""
    within: dict[str, set[int]] = {}
    for bucket in (document["plan"] or {"buckets": ()})["buckets"]:
        for name in bucket["parameters"]:
            module = name
            while module:
                module = module.rpartition(".")[0]
                within.setdefault(module, set()).add(bucket["index"])
    return within


def _handouts(nodes: Mapping[str, Node], edges: Iterable[Sequence[str]], sync: Set[str]) -> set[str]:
    """Names of the nodes that take one parameter out of what a synchronisation node returns."""
    return {target for source, target in edges if source in sync and nodes[target]["target"] == "operator.getitem"}


def _is_sync(node: Node) -> bool:
    return node["op"] == "call_function" and str(node["target"]).startswith("ops.")


def sent_bytes(bucket: Mapping[str, Any]) -> int:
    """Bytes that a rank sends for a bucket of a plan, compressed or not."""
    nbytes: int = bucket["wire_nbytes"] if bucket.get("compression") else bucket["nbytes"]
    return nbytes


def spec_bytes(spec: Mapping[str, Any]) -> int:
    """Bytes of a parameter, from its entry in the plan."""
    count: int = math.prod(spec["shape"])
    return count * int(spec["itemsize"])
