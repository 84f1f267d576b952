"""The file for Model Explorer: its keys, modules as namespaces, an overlay for each bucket."""

from __future__ import annotations

import json

from autopar.view.explorer import explorer_json
from tests.view.documents import chain


def test_graphs_and_nodes() -> None:
    """Both graphs; a node has its module's path as namespace, its facts as attributes, its inputs as edges."""
    made = json.loads(explorer_json(chain(["blocks.0", "blocks.1"])))
    assert (made["label"], [graph["id"] for graph in made["graphs"]]) == ("Chain: ddp", ["after", "before"])
    (linear,) = [one for one in made["graphs"][0]["nodes"] if one["id"] == "op1"]
    assert (linear["label"], linear["namespace"]) == ("F.linear", "blocks/1")
    assert {"key": "flops", "value": "256"} in linear["attrs"]
    assert [one["sourceNodeId"] for one in linear["incomingEdges"]] == ["g1", "op0"]
    assert linear["outputsMetadata"][0]["attrs"] == [{"key": "tensor_shape", "value": "2x8 f32"}]


def test_every_bucket_has_an_overlay() -> None:
    """It joins the synchronisation to what uses the bucket's parameters; names are those of nodes."""
    made = json.loads(explorer_json(chain(["a", "b"])))
    (layers,) = made["graphs"][0]["tasksData"]["edgeOverlaysDataListLeftPane"]
    assert layers["type"] == "edge_overlays"
    assert [one["name"] for one in layers["overlays"]] == ["bucket 0: 256 B", "bucket 1: 256 B"]
    assert layers["overlays"][0]["edges"] == [{"sourceNodeId": "s1", "targetNodeId": "op1"}]
    assert layers["overlays"][0]["edgeColor"] != layers["overlays"][1]["edgeColor"]


def test_bucket_without_a_node_joins_its_users() -> None:
    """Gradients of opaque modules are gathered by hooks: the modules themselves are joined."""
    document = chain(["a", "b"], opaque=["a", "b"])
    document["plan"]["buckets"] = [{**document["plan"]["buckets"][0], "parameters": ["b.weight", "a.weight"]}]
    made = json.loads(explorer_json(document))
    (overlay,) = made["graphs"][0]["tasksData"]["edgeOverlaysDataListLeftPane"][0]["overlays"]
    assert overlay["edges"] == [{"sourceNodeId": "op0", "targetNodeId": "op1"}]
