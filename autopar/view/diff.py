"""Compares two graph documents: what was decided (the plan), and the graph that came of it."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from autopar.view.operations import sent_bytes

__all__ = ["diff_documents"]

_ABOUT = ("model", "strategy", "front_end", "world_size")
_PLAN = ("pipeline", "buffers", "combine", "options")
_SHOWN = ("op", "target", "class", "module", "shape", "dtype", "device", "bucket", "replica", "opaque", "region")
_LONGEST = 4000  # nodes that are aligned by their order; of more, those of equal names only


def diff_documents(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What differs, as JSON values; ``equal`` says whether anything does.

    Nodes are aligned by what they are and in which order they come, so that a new node in the middle does not make
    all later ones differ that were only numbered on. Times, source lines and node names do not count.

    Args:
        one, other: see ``autopar.view.graph_json``.
    """
    fields = [_field(name, one[name], other[name]) for name in _ABOUT if one[name] != other[name]]
    plan = _plans(one["plan"], other["plan"])
    graphs = {which: _graphs(one[which], other[which]) for which in ("before", "after")}
    equal = not fields and not any(plan.values()) and not any(any(graph.values()) for graph in graphs.values())
    return {"version": 1, "equal": equal, "about": fields, "plan": plan, **graphs}


def _field(name: str, one: Any, other: Any) -> dict[str, Any]:
    return {"field": name, "a": one, "b": other}


def _plans(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> dict[str, list[dict[str, Any]]]:
    one, other = one or {}, other or {}
    fields = [_field(name, one.get(name), other.get(name)) for name in _PLAN if one.get(name) != other.get(name)]
    places = [_places(plan) for plan in (one, other)]
    moved = [
        {"parameter": name, "a": places[0].get(name), "b": places[1].get(name)}
        for name in dict.fromkeys([*places[0], *places[1]])
        if places[0].get(name) != places[1].get(name)
    ]
    sizes = [{bucket["index"]: sent_bytes(bucket) for bucket in plan.get("buckets", ())} for plan in (one, other)]
    buckets = [
        {"bucket": index, "a": sizes[0].get(index), "b": sizes[1].get(index)}
        for index in sorted({*sizes[0], *sizes[1]})
        if sizes[0].get(index) != sizes[1].get(index)
    ]
    specs = [{spec["name"]: spec for spec in plan.get("parameters", ())} for plan in (one, other)]
    shapes = [
        {"parameter": name, "a": _kind(specs[0].get(name)), "b": _kind(specs[1].get(name))}
        for name in dict.fromkeys([*specs[0], *specs[1]])
        if _kind(specs[0].get(name)) != _kind(specs[1].get(name))
    ]
    return {"fields": fields, "parameters": shapes, "moved": moved, "buckets": buckets}


def _places(plan: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Bucket, place in it and route of every parameter."""
    return {
        name: [bucket["index"], place, bucket["route"]]
        for bucket in plan.get("buckets", ())
        for place, name in enumerate(bucket["parameters"])
    }


def _kind(spec: Mapping[str, Any] | None) -> str | None:
    return None if spec is None else f"{spec['dtype']}{list(spec['shape'])}"


def _graphs(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    same = _aligned(one["nodes"], other["nodes"])
    moved = _moved(one["nodes"], other["nodes"], same)
    places = [{node["name"]: index for index, node in enumerate(graph["nodes"])} for graph in (one, other)]
    inputs = [_inputs(graph) for graph in (one, other)]
    found = {node["name"]: node for node in other["nodes"]}
    changed = []
    for node in one["nodes"]:
        partner = found.get(same.get(node["name"], ""))
        if partner is None:
            continue
        fields = [_field(key, node.get(key), partner.get(key)) for key in _SHOWN if node.get(key) != partner.get(key)]
        if node["name"] in moved:
            fields.append(_field("position", places[0][node["name"]], places[1][partner["name"]]))
        reads = [same.get(name, f"{name} (removed)") for name in inputs[0].get(node["name"], ())]
        if reads != inputs[1].get(partner["name"], []):
            fields.append(_field("inputs", inputs[0].get(node["name"], []), inputs[1].get(partner["name"], [])))
        elif _renamed(node["code"], same) != partner["code"]:  # a constant among the arguments
            fields.append(_field("code", node["code"], partner["code"]))
        if fields:
            changed.append({"node": node["name"], "b_node": partner["name"], "fields": fields})
    kept = set(same.values())
    return {
        "removed": [_brief(node) for node in one["nodes"] if node["name"] not in same],
        "added": [_brief(node) for node in other["nodes"] if node["name"] not in kept],
        "changed": changed,
    }


def _renamed(code: str | None, same: Mapping[str, str]) -> str | None:
    return None if code is None else re.sub(r"\b[A-Za-z_]\w*", lambda name: same.get(name.group(), name.group()), code)


def _brief(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: node[key] for key in ("name", "target", "module", "shape", "dtype", "bucket", "created_by")}


def _inputs(graph: Mapping[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for source, target in graph["edges"]:
        found.setdefault(target, []).append(source)
    return found


def _aligned(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Names of nodes to the names of their partners in the other graph.

    First what comes in the same order and is alike in all but the name; then what is called alike; then what comes
    in the same order and differs in shape only.
    """
    small = max(len(one), len(other)) <= _LONGEST
    same = _in_order(one, other, ("target", "module", "shape", "dtype")) if small else {}
    rest, free = _left(one, other, same)
    called = {(node["name"], node["target"], node["module"]) for node in free}
    same |= {node["name"]: node["name"] for node in rest if (node["name"], node["target"], node["module"]) in called}
    rest, free = _left(one, other, same)
    return same | _in_order(rest, free, ("target", "module")) if small else same


def _in_order(
    one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]], keys: Sequence[str]
) -> dict[str, str]:
    ours, theirs = ([str([node[key] for key in keys]) for node in nodes] for nodes in (one, other))
    blocks = SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks()
    return {
        one[block.a + step]["name"]: other[block.b + step]["name"] for block in blocks for step in range(block.size)
    }


def _left(
    one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]], same: Mapping[str, str]
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The nodes of both that have no partner yet."""
    taken = set(same.values())
    return [node for node in one if node["name"] not in same], [node for node in other if node["name"] not in taken]


def _moved(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]], same: Mapping[str, str]) -> set[str]:
    """Nodes that stand elsewhere in the other graph: those that a longest common order leaves out."""
    place = {node["name"]: index for index, node in enumerate(other)}
    names = [node["name"] for node in one if node["name"] in same]
    ends: list[int] = []  # smallest last place of an increasing run of each length (patience sorting)
    tops: list[str] = []
    before: dict[str, str | None] = {}
    for name in names:
        length = bisect_left(ends, place[same[name]])
        before[name] = tops[length - 1] if length else None
        ends[length:] = [place[same[name]], *ends[length + 1 :]]
        tops[length:] = [name, *tops[length + 1 :]]
    kept, last = set(), tops[-1] if tops else None
    while last is not None:
        kept.add(last)
        last = before[last]
    return set(names) - kept
