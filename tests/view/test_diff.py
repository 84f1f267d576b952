"""What differs between two graph documents: plan and graphs, and what does not count."""

from __future__ import annotations

import copy
import time
from typing import Any

from autopar.view.diff import diff_documents
from autopar.view.diff_text import diff_lines
from tests.view.documents import chain, node


def test_equal_documents() -> None:
    """Times, source lines and the names of nodes do not count."""
    one = chain(["a", "b"])
    other = copy.deepcopy(one)
    other["passes"], other["autopar"] = [], "9.9"
    for row in other["after"]["nodes"]:
        row["source"] = "model.py:99"
    found = diff_documents(one, other)
    assert found["equal"]
    assert list(diff_lines(found)) == []


def renumbered(document: dict[str, Any], names: dict[str, str]) -> None:
    """Gives nodes of the transformed graph other names."""
    graph = document["after"]
    for row in graph["nodes"]:
        old, row["name"] = row["name"], names.get(row["name"], row["name"])
        row["code"] = row["code"].replace(old, row["name"])
    graph["edges"] = [[names.get(end, end) for end in edge] for edge in graph["edges"]]


def test_a_node_more_is_one_line() -> None:
    """Those behind it, which are only numbered on, are the same."""
    one, other = chain(["a", "a", "a"]), chain(["a", "a", "a"])
    other["after"] = copy.deepcopy(other["after"])
    renumbered(other, {"op1": "op2", "op2": "op3"})
    graph = other["after"]
    graph["nodes"].insert(6, node("op1", target="torch.neg", module="a", created_by="negate"))
    graph["edges"] = [["op1", "op2"] if edge == ["op0", "op2"] else edge for edge in graph["edges"]]
    graph["edges"].insert(5, ["op0", "op1"])
    found = diff_documents(one, other)["after"]
    assert [row["name"] for row in found["added"]] == ["op1"]
    assert found["removed"] == []
    assert [(row["node"], [one["field"] for one in row["fields"]]) for row in found["changed"]] == [("op1", ["inputs"])]


def test_changes_of_one_node() -> None:
    """Shape, bucket, inputs, a constant among the arguments, and the place in the graph."""
    one = chain(["a", "b"])
    for field, change in {"shape": [9, 9], "bucket": 7, "code": "op1 = F.linear(alpha = 2)"}.items():
        other = copy.deepcopy(one)
        next(row for row in other["after"]["nodes"] if row["name"] == "op1")[field] = change
        (changed,) = diff_documents(one, other)["after"]["changed"]
        assert (changed["node"], changed["fields"][0]["field"], changed["fields"][0]["b"]) == ("op1", field, change)
    other = copy.deepcopy(one)
    other["after"]["nodes"].insert(1, other["after"]["nodes"].pop(5))
    (changed,) = diff_documents(one, other)["after"]["changed"]
    assert changed["fields"] == [{"field": "position", "a": 5, "b": 1}]


def test_plans() -> None:
    """A parameter that moved, buckets that grew or are new, another pipeline; and the lines that say so."""
    one, other = chain(["a", "b"]), chain(["a", "b"])
    plan = other["plan"] = copy.deepcopy(other["plan"])
    first, second = plan["buckets"]
    first["parameters"] = [*first["parameters"], *second["parameters"]]
    first["nbytes"] += second["nbytes"]
    plan["buckets"] = [first]
    plan["pipeline"] = "shapes"
    found = diff_documents(one, other)["plan"]
    assert [row["field"] for row in found["fields"]] == ["pipeline"]
    assert found["moved"] == [{"parameter": "a.weight", "a": [1, 0, "graph"], "b": [0, 1, "graph"]}]
    assert [(row["bucket"], row["b"]) for row in found["buckets"]] == [(0, 512), (1, None)]
    lines = list(diff_lines(diff_documents(one, other)))
    assert "  bucket 1: 256 B -> none" in lines
    assert "  a.weight: bucket 1, place 0 -> bucket 0, place 1" in lines
    stopped = diff_documents(one, {**other, "plan": None})
    assert [row["b"] for row in stopped["plan"]["moved"]] == [None, None]
    assert "  a.weight: bucket 1, place 0 -> no bucket" in list(diff_lines(stopped))


def test_many_differences_are_cut() -> None:
    """A screen of them; the JSON has all."""
    found = diff_documents(chain([f"m{index}" for index in range(90)]), chain(["other"]))
    lines = list(diff_lines(found))
    assert len(found["after"]["removed"]) > 300
    assert len(lines) < 140
    assert any(line.endswith("more, see --json") for line in lines)


def test_five_thousand_nodes_in_a_second() -> None:
    """Beyond what can be aligned by order, names decide."""
    names = [f"m{index}" for index in range(1000)]
    one, other = chain(names), chain(names)
    next(row for row in other["after"]["nodes"] if row["name"] == "op500")["shape"] = [1]
    assert len(one["after"]["nodes"]) > 4000
    started = time.perf_counter()
    assert [row["node"] for row in diff_documents(one, other)["after"]["changed"]] == ["op500"]
    assert time.perf_counter() - started < 5
