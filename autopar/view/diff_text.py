"""What differs between two graph documents, as lines for a person."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from autopar.view.units import bytes_text

__all__ = ["diff_lines"]

_MOST = 30  # lines of one kind


def diff_lines(diff: Mapping[str, Any]) -> Iterator[str]:
    """Lines under a heading for each part that differs; none where nothing does.

    Args:
        diff: see ``autopar.view.diff.diff_documents``.
    """
    plan = diff["plan"]
    moved = (f"{one['parameter']}: {_place(one['a'])} -> {_place(one['b'])}" for one in plan["moved"])
    shapes = (f"{one['parameter']}: {one['a'] or 'none'} -> {one['b'] or 'none'}" for one in plan["parameters"])
    sizes = (f"bucket {one['bucket']}: {_size(one['a'])} -> {_size(one['b'])}" for one in plan["buckets"])
    yield from _section("about", _fields(diff["about"]))
    yield from _section("plan", [*_fields(plan["fields"]), *_some(shapes), *_some(sizes), *_some(moved)])
    for which, title in (("before", "graph as captured"), ("after", "graph as transformed")):
        graph = diff[which]
        lines = [
            *_some(f"- {_node(node)}" for node in graph["removed"]),
            *_some(f"+ {_node(node)}" for node in graph["added"]),
            *_some(line for node in graph["changed"] for line in _changes(node)),
        ]
        yield from _section(title, lines)


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    lines = list(lines)
    if lines:
        yield title
        yield from (f"  {line}" for line in lines)


def _some(lines: Iterable[str]) -> list[str]:
    whole = list(lines)
    more = [f"and {len(whole) - _MOST} more, see --json"] if len(whole) > _MOST else []
    return [*islice(whole, _MOST), *more]


def _fields(fields: Iterable[Mapping[str, Any]]) -> list[str]:
    pairs = ((f"{one['field']}: {one['a']}", f"{'->':>{len(one['field'])}}  {one['b']}") for one in fields)
    return [line for pair in pairs for line in pair]


def _node(node: Mapping[str, Any]) -> str:
    shape = "" if node["shape"] is None else f"  {node['dtype']}{node['shape']}"
    return f"{node['name']}  {node['target']}  in {node['module'] or 'the model'}{shape}, made by {node['created_by']}"


def _changes(node: Mapping[str, Any]) -> Iterator[str]:
    name = node["node"] if node["node"] == node["b_node"] else f"{node['node']} ({node['b_node']})"
    for one in node["fields"]:
        yield f"~ {name}: {one['field']} {one['a']} -> {one['b']}"


def _place(place: list[Any] | None) -> str:
    if place is None:
        return "no bucket"
    bucket, position, route = place
    return f"bucket {bucket}, place {position}{', by hook' if route == 'hook' else ''}"


def _size(nbytes: int | None) -> str:
    return "none" if nbytes is None else bytes_text(nbytes)
