"""What a notebook shows of a Program: its picture, and below it the operations as a table."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autopar.view.graph_json import program_document
from autopar.view.lanes import lanes_svg
from autopar.view.layered_svg import layered_svg
from autopar.view.operations import ROOT, Operation, operations
from autopar.view.svg import safe
from autopar.view.units import bytes_text, count_text, flops_text, shape_text

if TYPE_CHECKING:
    from autopar.program import Program

__all__ = ["program_html"]

_MOST_ROWS = 500


def program_html(program: Program) -> str:
    """A piece of HTML: the plan where there is one, else the graph, as an image that touches nothing around it."""
    document = program_document(program)
    picture = lanes_svg(document) if document["plan"] else layered_svg(document)
    encoded = base64.b64encode(picture.encode()).decode()
    image = f'<img alt="{safe(document["model"])}" style="max-width:100%" src="data:image/svg+xml;base64,{encoded}">'
    return f"<div>{image}{_table(document)}</div>"


def _table(document: Mapping[str, Any]) -> str:
    run = operations(document)
    names = ("module", "operation", "output", "parameters", "FLOPs", "buckets", "source")
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join(f"<tr>{_cells(one)}</tr>" for one in run[:_MOST_ROWS])
    more = f"<p>and {count_text(len(run) - _MOST_ROWS, 'operation')} more</p>" if len(run) > _MOST_ROWS else ""
    title = count_text(len(run), "operation")
    return f"<details><summary>{title}</summary><table><tr>{head}</tr>{body}</table>{more}</details>"


def _cells(one: Operation) -> str:
    node = one.node
    values = (
        node["module"] or ROOT,
        node["class"] or node["target"],
        shape_text(node["shape"], node["dtype"]),
        bytes_text(one.param_bytes) if one.param_bytes else "",
        flops_text(node["flops"]) if node["flops"] else "",
        ", ".join(map(str, one.buckets)),
        node["source"] or "",
    )
    return "".join(f"<td>{safe(str(value))}</td>" for value in values)
