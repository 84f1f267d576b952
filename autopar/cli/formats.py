"""The pictures by their names: ``autopar view --format``, and the files that ``autopar transform`` writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autopar.view.measured import Measured

__all__ = ["FORMATS", "rendered"]

FORMATS = {
    "svg": "the plan: what happens on the wire",
    "html": "the graph as one page to explore",
    "graph-svg": "the graph as boxes and arrows",
    "dot": "the graph for Graphviz",
    "json": "graph.json",
    "model-explorer": "the graph for Model Explorer",
    "trace": "the predicted step for Perfetto",
}


def rendered(document: Mapping[str, Any], form: str, graph: str = "after", measured: Measured | None = None) -> str:
    """A graph document as text in one of the formats.

    Args:
        document: see ``autopar.view.graph_json``.
        form: a key of ``FORMATS``.
        graph: ``"before"`` or ``"after"``, for ``dot`` and ``graph-svg``; the others show all there is.
        measured: steps to show beside the predicted one, for ``html`` and ``trace``.
    """
    if form == "svg":
        from autopar.view.lanes import lanes_svg

        return lanes_svg(document)
    if form == "html":
        from autopar.view.page import page_html

        return page_html(document, measured)
    if form == "graph-svg":
        from autopar.view.layered_svg import layered_svg

        return layered_svg(document, graph=graph)
    if form == "dot":
        from autopar.view.dot import dot_text

        return dot_text(document, graph=graph)
    if form == "json":
        from autopar.view.graph_json import write_document

        return write_document(document)
    if form == "model-explorer":
        from autopar.view.explorer import explorer_json

        return explorer_json(document)
    assert form == "trace", f"unknown format {form!r}"
    from autopar.view.trace import trace_json

    return trace_json(document, measured)
