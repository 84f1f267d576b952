"""Reads a graph document as a list of operations, with the parameters that each one uses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

__all__ = ["Operation", "operations", "sent_bytes", "spec_bytes"]

Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
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
    inputs: dict[str, list[Node]] = {name: [] for name in nodes}
    for source, target in document[graph]["edges"]:
        inputs[target].append(nodes[source])
    sync = {name for name, node in nodes.items() if _is_sync(node)}
    handed = {name for name, node in nodes.items() if _is_parameter(node)} | _handouts(nodes, inputs, sync)
    within = _buckets_within(document) if any(node["op"] == "call_module" for node in nodes.values()) else {}
    found = []
    for name, node in nodes.items():
        if node["op"] in ("get_attr", "output") or name in handed:
            continue
        if name in sync:
            found.append(Operation(node, node["param_bytes"], (node["bucket"],), True))
            continue
        parameters = [one for one in inputs[name] if one["name"] in handed]
        buckets = {one["bucket"] for one in parameters if one["bucket"] is not None}
        if node["op"] == "call_module":
            buckets |= within.get(node["module"], set())
        found.append(
            Operation(
                node,
                sum(one["bytes"] for one in parameters) + node["param_bytes"],
                tuple(sorted(buckets)),
                False,
            )
        )
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


def _handouts(nodes: Mapping[str, Node], inputs: Mapping[str, list[Node]], sync: Set[str]) -> set[str]:
    """Names of the nodes that take one parameter out of what a synchronisation node returns."""
    return {
        name
        for name, node in nodes.items()
        if node["target"] == "operator.getitem" and inputs[name] and inputs[name][0]["name"] in sync
    }


def _is_sync(node: Node) -> bool:
    return node["bucket"] is not None and node["op"] == "call_function" and str(node["target"]).startswith("ops.")


def _is_parameter(node: Node) -> bool:
    return bool(node["param_bytes"] and node["op"] in ("get_attr", "placeholder"))


def sent_bytes(bucket: Mapping[str, Any]) -> int:
    """Bytes that a rank sends for a bucket of a plan, compressed or not."""
    nbytes: int = bucket["wire_nbytes"] if bucket.get("compression") else bucket["nbytes"]
    return nbytes


def spec_bytes(spec: Mapping[str, Any]) -> int:
    """Bytes of a parameter, from its entry in the plan."""
    count: int = math.prod(spec["shape"])
    return count * int(spec["itemsize"])
