"""graph.html: whole, closed against names with markup, small, and the same library that was vendored."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

import autopar.view.page
from autopar.view.page import page_html
from tests.view.documents import chain, node

VENDOR = Path(autopar.view.page.__file__).parent / "assets" / "vendor"
EVIL = ["</script><script>alert(1)</script>", "<!--<script>", "<img src=x onerror=alert(1)>", "'\"&{title}{data}"]


def data_of(page: str) -> Any:
    """The data that the page's script reads, found as a browser finds it: up to the first end tag."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text)


def test_vendored_library_is_the_published_one() -> None:
    """The sum that stands in the README is that of the file."""
    found = hashlib.sha256((VENDOR / "dagre.min.js").read_bytes()).hexdigest()
    assert found in (VENDOR / "README.md").read_text()
    assert "Permission is hereby granted, free of charge" in (VENDOR / "LICENSE.dagre").read_text()


def test_policy_allows_the_scripts_of_the_page_alone() -> None:
    """Their sums are those in the page's policy, which forbids all else."""
    page = page_html(chain(["a", "b"]))
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', page)
    sums = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    assert len(sums) == 2
    assert policy.startswith("default-src 'none'")
    assert re.findall(r"'sha256-(.*?)'", policy) == sums
    outside = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert not re.search(r"(src|href)=\"(?!data:,)|url\(|@import", outside)


@pytest.mark.parametrize("name", EVIL)
def test_names_are_data(name: str) -> None:
    """Nothing of a name becomes markup; it reads back as it was."""
    document = chain([name])
    document["model"] = name
    page, plain = page_html(document), page_html(chain(["plain"]))
    assert page.count("<") - page.count("&lt;") <= plain.count("<")
    assert page.count("<script") == plain.count("<script") == 3
    data = data_of(page)
    assert data["model"] == name
    assert name in data["texts"]


def test_nodes_carry_what_the_pane_shows() -> None:
    """Shape, source line, code, buckets and times of an operation; its weight and its synchronisation are state."""
    data = data_of(page_html(chain(["a", "b"])))
    rows = [dict(zip(data["fields"], row, strict=True)) for row in data["after"]["nodes"]]
    by_name = {data["texts"][row["name"]]: row for row in rows}
    linear = by_name["op1"]
    shown = {key: data["texts"][linear[key]] for key in ("module", "shape", "source", "code", "created_by")}
    assert shown == {
        "module": "b",
        "shape": "2x8 f32",
        "source": "model.py:7",
        "code": "op1 = F.linear()",
        "created_by": "capture",
    }
    assert (linear["buckets"], linear["state"], linear["used_bytes"]) == ([0], 0, 256)
    assert linear["times"][1] > linear["times"][0]
    assert linear["times"][3] > linear["times"][2] == pytest.approx(data["step"]["forward"][1], abs=0.1)
    assert [by_name[name]["state"] for name in ("w1", "s1", "g1", "output")] == [1, 1, 1, 0]


def test_five_thousand_nodes_fit_into_two_megabytes() -> None:
    """Names and code as long as those of real models."""
    page = page_html(chain([f"encoder.layers.{index // 10}.feed_forward.part{index % 10}" for index in range(1250)]))
    assert len(page.encode()) < 2_000_000
    assert data_of(page)["note"] == ""


def test_what_is_too_large_is_folded_with_a_note() -> None:
    """Neighbours of one module become one node, whose figures are sums; edges lose no connection."""
    document = chain(["stem"])
    inner = [node(f"n{index}", module=f"layers.{index // 50}", flops=2, bytes=3) for index in range(20_000)]
    document["after"]["nodes"][1:1] = inner
    document["after"]["edges"] += [[f"n{index}", f"n{index + 1}"] for index in range(19_999)]
    data = data_of(page_html(document))
    nodes = [dict(zip(data["fields"], row, strict=True)) for row in data["after"]["nodes"]]
    assert "after 20,006 nodes" in data["note"]
    assert len(nodes) < 500
    folded = [one for one in nodes if data["texts"][one["target"]] == "50 nodes"]
    assert [(one["flops"], one["bytes"]) for one in folded] == [(100, 150)] * 400
    assert len(data["after"]["edges"]) // 2 >= 399


def test_nothing_to_predict() -> None:
    """A document without a plan has a page as well."""
    data = data_of(page_html({**chain(["a"]), "plan": None}))
    assert (data["step"]["transfers"], data["buckets"]) == ([], [])
