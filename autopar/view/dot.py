"""A graph as Graphviz DOT: modules are clusters, synchronisation nodes have their bucket's colour."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from autopar.view.palette import bucket_colour
from autopar.view.units import bytes_text, shape_text

__all__ = ["dot_text"]


def dot_text(document: Mapping[str, Any], *, graph: str = "after") -> str:
    """The graph in the DOT language (graphviz.org/doc/info/lang.html).

    Every name of the user's stands in a quoted string, never in an identifier or in HTML.

    Args:
        document: see ``autopar.view.graph_json``.
        graph: ``"after"`` or ``"before"``.
    """
    nodes = document[graph]["nodes"]
    identifiers = {node["name"]: f"n{index}" for index, node in enumerate(nodes)}
    root = _Cluster("")
    for node in nodes:
        cluster = root
        for part in filter(None, str(node["module"]).split(".")):
            cluster = cluster.inner.setdefault(part, _Cluster(part))
        cluster.nodes.append(node)
    title = f"{document['model']} {'after' if graph == 'after' else 'before'} {document['strategy']}"
    lines = [
        f"digraph {_quoted(title)} {{",
        f"  label={_quoted(title)}; labelloc=t; rankdir=TB; fontname=Helvetica; fontsize=14;",
        '  node [shape=box, style="rounded,filled", fillcolor="#f3f5f7", color="#8896a5",'
        " fontname=Helvetica, fontsize=10];",
        '  edge [color="#8896a5", arrowsize=0.6];',
        *_cluster(root, identifiers, depth=1, numbers=itertools.count()),
    ]
    for source, target in document[graph]["edges"]:
        lines.append(f"  {identifiers[source]} -> {identifiers[target]};")
    return "\n".join([*lines, "}"]) + "\n"


@dataclass
class _Cluster:
    label: str
    nodes: list[Mapping[str, Any]] = field(default_factory=list)
    inner: dict[str, _Cluster] = field(default_factory=dict)


def _cluster(cluster: _Cluster, identifiers: Mapping[str, str], *, depth: int, numbers: Iterator[int]) -> Iterator[str]:
    indent = "  " * depth
    for node in cluster.nodes:
        yield f"{indent}{identifiers[node['name']]} [{_attributes(node)}];"
    for inner in cluster.inner.values():
        yield f"{indent}subgraph cluster_{next(numbers)} {{"
        yield f'{indent}  label={_quoted(inner.label)}; labeljust=l; color="#b6c2cd"; fontsize=10;'
        yield from _cluster(inner, identifiers, depth=depth + 1, numbers=numbers)
        yield f"{indent}}}"


def _attributes(node: Mapping[str, Any]) -> str:
    lines = [str(node["class"] or node["target"])]
    if node["op"] == "placeholder":
        lines = [f"input {node['name']}"]
    if node["shape"] is not None:
        lines.append(shape_text(node["shape"], node["dtype"]))
    sync = node["bucket"] is not None and str(node["target"]).startswith("ops.")
    if sync:
        lines.append(f"bucket {node['bucket']}, {bytes_text(node['param_bytes'])}")
    if node["opaque"]:
        lines.append("opaque")
    if node.get("region"):
        lines.append("computed again in backward")
    shown = {"label": "\n".join(lines), "tooltip": f"{node['name']} {node['source'] or ''}".strip()}
    if sync:
        shown |= {"fillcolor": bucket_colour(node["bucket"]), "fontcolor": "white", "shape": "box3d"}
    elif node["opaque"]:
        shown |= {"style": "filled,dashed", "fillcolor": "#e3d9c6"}
    elif node["op"] == "get_attr":
        shown |= {"shape": "ellipse", "fillcolor": "white"}
        if node["bucket"] is not None:
            shown["color"] = bucket_colour(node["bucket"])
    elif node["op"] in ("placeholder", "output"):
        shown |= {"shape": "oval", "fillcolor": "#dbe9f6"}
    return ", ".join(f"{key}={_quoted(value)}" for key, value in shown.items())


def _quoted(text: str) -> str:
    """A DOT string. A backslash of the text itself must not start one of DOT's escapes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
