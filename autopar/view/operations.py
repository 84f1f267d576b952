"""Reads a graph document as a list of operations, with the parameters that each one uses."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
    for source, target in document[graph]["edges"]:
        if source in sync and nodes[target]["target"] == "operator.getitem":
            handed.add(target)  # one parameter, taken out of what the synchronisation returns
    taken: dict[str, list[Node]] = {}
    for source, target in document[graph]["edges"]:
        if source in handed:
            taken.setdefault(target, []).append(nodes[source])
    within: dict[str, set[int]] | None = None
    found = []
    for name, node in nodes.items():
        op = node["op"]
        if op == "get_attr" or op == "output" or name in handed:
            continue
        if name in sync:
            found.append(Operation(node, node["param_bytes"], (node["bucket"],), True))
            continue
        parameters = taken.get(name, ())
        buckets = {one["bucket"] for one in parameters if one["bucket"] is not None}
        if op == "call_module":
            within = _buckets_within(document) if within is None else within
            buckets |= within.get(node["module"], set())
        nbytes = node["param_bytes"] + sum([one["bytes"] for one in parameters])
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
