"""graph.svg: boxes that do not overlap, edges between their sides, and folding of what is too much."""

from __future__ import annotations

import itertools
import random
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from autopar.view.layered import layered
from autopar.view.layered_svg import layered_svg
from tests.view.documents import chain

SVG = "{http://www.w3.org/2000/svg}"


def _boxes(document: dict[str, Any], css: str = "box") -> list[ElementTree.Element]:
    return ElementTree.fromstring(layered_svg(document)).findall(f".//{SVG}rect[@class='{css}']")


@pytest.mark.parametrize("seed", range(8))
def test_boxes_of_a_layer_stand_apart(seed: int) -> None:
    """Also in random graphs: no two boxes overlap, every edge goes down from side to side."""
    draw = random.Random(seed)
    widths = [draw.uniform(40, 240) for _ in range(30)]
    pairs = list(itertools.combinations(range(30), 2))
    edges = draw.sample(pairs, 60)
    layout = layered(widths, 40, edges)
    for one, other in pairs:
        (x0, y0), (x1, y1) = layout.centres[one], layout.centres[other]
        assert abs(y0 - y1) >= 40 or abs(x0 - x1) >= (widths[one] + widths[other]) / 2
    assert layout.paths.keys() == set(edges)
    for (source, target), path in layout.paths.items():
        assert path[0] == (layout.centres[source][0], layout.centres[source][1] + 20)
        assert path[-1] == (layout.centres[target][0], layout.centres[target][1] - 20)
        assert all(low[1] < high[1] for low, high in itertools.pairwise(path))
    assert all(width / 2 <= x + 1e-6 for (x, _), width in zip(layout.centres, widths, strict=True))


def test_operations_are_boxes() -> None:
    """Two linears with bucket, shape and bytes; the opaque one looks different; parameters are no boxes."""
    document = chain(["a", "b", "c"], opaque=["c"])
    assert len(_boxes(document)) == 2
    assert len(_boxes(document, "opaque")) == 1
    text = "".join(ElementTree.fromstring(layered_svg(document)).itertext())
    for fact in ("F.linear a", "2x8 f32 · 256 B · 256 FLOPs", "LSTM c", "input x", "4 operations"):
        assert fact in text


def test_large_graphs_are_drawn_by_module() -> None:
    """300 operations become a box for each block, and the picture says so."""
    document = chain([f"blocks.{index // 10}.part{index % 10}" for index in range(300)])
    assert len(_boxes(document)) == 30
    assert "301 operations in 31 boxes" in "".join(ElementTree.fromstring(layered_svg(document)).itertext())


def test_before() -> None:
    """The captured graph is another one."""
    assert "Chain before ddp" in layered_svg(chain(["a"]), graph="before")


@pytest.mark.parametrize("name", ["</title><script>alert(1)</script>", 'a"b&c', "W" * 300])
def test_names_are_text_inside_the_frame(name: str) -> None:
    """Nothing of a name becomes an element, and long ones are shortened to their box."""
    text = layered_svg({**chain([name]), "model": name})
    root = ElementTree.fromstring(text)
    assert root.find(f".//{SVG}script") is None
    assert all(float(box.get("width", 0)) <= 300 for box in root.iter(f"{SVG}rect") if box.get("class") == "box")
    assert max(len(one.text or "") for one in root.iter(f"{SVG}text")) < 100


def test_empty_graph() -> None:
    """A program that computes nothing has a picture without boxes."""
    document = chain(["a"])
    document["after"] = {"nodes": [], "edges": []}
    document["plan"] = None
    assert re.search("0 operations", layered_svg(document))
