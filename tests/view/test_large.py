"""A model of 50,000 nodes: folded, with a note, in a time that grows no faster than the model."""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree as ElementTree

from autopar.view.explorer import explorer_json
from autopar.view.lanes import lanes_svg
from autopar.view.layered_svg import layered_svg
from autopar.view.packed import FIELDS, Texts, packed_graph
from autopar.view.page import page_html
from autopar.view.predict import predict
from tests.view.documents import chain


def test_fifty_thousand_nodes_are_folded_with_a_note() -> None:
    """plan.svg draws repeats once and fits a screen; the page merges neighbours; graph.svg draws modules."""
    document = chain([f"blocks.{index // 10}.part{index % 10}" for index in range(12_500)])
    assert len(document["after"]["nodes"]) > 50_000
    plan = lanes_svg(document)
    ElementTree.fromstring(plan)
    assert "\N{MULTIPLICATION SIGN} 1250" in plan
    assert "alike, drawn once" in plan
    assert len(plan) < 200_000
    assert len(layered_svg(document)) < 50_000
    page = page_html(document)
    assert "Neighbours of one module are drawn as one node, as the graph is large (after 50,002 nodes)." in page
    graph = packed_graph(document, "after", predict(document), texts := Texts(), most=12_000)
    state, module = FIELDS.index("state"), FIELDS.index("module")
    modules = [texts.all()[row[module]] for row in graph["nodes"] if not row[state]]
    assert modules == ["", *(f"blocks.{index}" for index in range(1250)), ""]
    assert len(page) < 5_000_000


def test_overlays_of_many_buckets_take_no_longer_than_their_nodes() -> None:
    """Twice the buckets take twice the time and not four times; a wide margin, as the machine may be busy."""
    taken = []
    for count in (500, 4000):
        document = chain([f"m{index}" for index in range(count)])
        started = time.process_time()
        layers = json.loads(explorer_json(document))["graphs"][0]["tasksData"]["edgeOverlaysDataListLeftPane"]
        taken.append(time.process_time() - started)
        assert len(layers[0]["overlays"]) == count
    assert taken[1] < 24 * taken[0]
