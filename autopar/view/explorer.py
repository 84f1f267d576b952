"""The graphs for Model Explorer (github.com/google-ai-edge/model-explorer), with an overlay for each bucket."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from autopar.view.operations import Operation, operations, sent_bytes
from autopar.view.palette import bucket_colour
from autopar.view.units import bytes_text, shape_text

__all__ = ["explorer_json"]

_SHOWN = ("target", "class", "dtype", "device", "bytes", "param_bytes", "flops", "bucket", "replica", "source")
_SAID = ("opaque", "region", "created_by", "code")


def explorer_json(document: Mapping[str, Any]) -> str:
    """A graph collection: ``after``, with one edge overlay a bucket, and ``before``.

    An overlay joins the synchronisation node of a bucket, where there is one, to what uses its
    parameters, so that all that travels together lights up together.

    Args:
        document: see ``autopar.view.graph_json``.
    """
    run = operations(document)
    users: dict[int, list[Operation]] = {}
    for one in run:
        for index in one.buckets:
            users.setdefault(index, []).append(one)
    plan = document["plan"] or {"buckets": ()}
    overlays = [_overlay(users.get(bucket["index"], []), bucket) for bucket in plan["buckets"]]
    layers = {"type": "edge_overlays", "name": "gradient buckets", "overlays": overlays}
    tasks = {"edgeOverlaysDataListLeftPane": [layers]}
    graphs = [
        {"id": "after", "nodes": _nodes(document["after"]), "tasksData": tasks},
        {"id": "before", "nodes": _nodes(document["before"])},
    ]
    label = f"{document['model']}: {document['strategy']}"
    return json.dumps({"label": label, "graphs": graphs}) + "\n"


def _nodes(graph: Mapping[str, Any]) -> list[dict[str, Any]]:
    incoming: dict[str, list[str]] = {node["name"]: [] for node in graph["nodes"]}
    for source, target in graph["edges"]:
        incoming[target].append(source)
    return [
        {
            "id": node["name"],
            "label": node["class"] or (node["name"] if node["op"] == "placeholder" else node["target"]),
            "namespace": str(node["module"]).replace(".", "/"),
            "attrs": [
                {"key": key, "value": str(node.get(key))}
                for key in (*_SHOWN, *_SAID)
                if node.get(key) not in (None, 0, False, "")
            ],
            "incomingEdges": [
                {"sourceNodeId": source, "sourceNodeOutputId": "0", "targetNodeInputId": str(place)}
                for place, source in enumerate(incoming[node["name"]])
            ],
            "outputsMetadata": [
                {"id": "0", "attrs": [{"key": "tensor_shape", "value": shape_text(node["shape"], node["dtype"])}]}
            ],
        }
        for node in graph["nodes"]
    ]


def _overlay(users: Sequence[Operation], bucket: Mapping[str, Any]) -> dict[str, Any]:
    index = bucket["index"]
    return {
        "name": f"bucket {index}: {bytes_text(sent_bytes(bucket))}",
        "edgeColor": bucket_colour(index),
        "edgeWidth": 3,
        "edges": _joined(
            [one.node["name"] for one in users if one.sync], [one.node["name"] for one in users if not one.sync]
        ),
    }


def _joined(sync: Sequence[str], users: Sequence[str]) -> list[dict[str, str]]:
    if sync:
        return [{"sourceNodeId": sync[0], "targetNodeId": user} for user in users]
    return [{"sourceNodeId": one, "targetNodeId": other} for one, other in itertools.pairwise(users)]
