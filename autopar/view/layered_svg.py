"""``graph.svg``: the graph as boxes and arrows, without any other program to lay it out.

Larger graphs are drawn by module: neighbours in the order of execution that belong to one module
are one box, so that at most some fifty are to be seen. ``graph.html`` has every node.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from autopar.view.layered import layered
from autopar.view.operations import ROOT, Operation, operations
from autopar.view.palette import bucket_colour
from autopar.view.runs import runs_of
from autopar.view.svg import fit, rect, safe, text, text_width, tooltip
from autopar.view.units import bytes_text, count_text, flops_text, shape_text

__all__ = ["layered_svg"]

_MOST_BOXES = 48
_BOX, _MARGIN, _HEAD = 40, 24, 64
_WIDEST = 300
_MOST_STRIPES = 12

_STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", Arial, sans-serif; fill: #1d2733 }
  .title { font-size: 16px; font-weight: 600 } .quiet { font-size: 11px; fill: #4a5663 } .page { fill: #fff }
  .graph { background: #fff }
  .box { fill: #dbe8f4; stroke: #8ba3b8 } .io { fill: #dcefdc; stroke: #8fb08f }
  .opaque { fill: #efdcbc; stroke: #a88b55 }
  .edge { fill: none; stroke: #7c8a97; stroke-width: 1.2 } .tip { fill: #7c8a97 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e4e9ee } .quiet { fill: #b3bec8 } .page { fill: #14191f }
    .graph { background: #14191f } .box { fill: #23384b; stroke: #5d7890 }
    .io { fill: #24402a; stroke: #5f8a66 } .opaque { fill: #4d3a1a; stroke: #a88b55 }
    .edge { stroke: #8896a5 } .tip { fill: #8896a5 }
  }
""".strip()


def layered_svg(document: Mapping[str, Any], *, graph: str = "after") -> str:
    """The graph as SVG text, light or dark as the viewer prefers.

    Args:
        document: see ``autopar.view.graph_json``.
        graph: ``"after"`` or ``"before"``.
    """
    run = [one for one in operations(document, graph) if not one.sync]
    runs = runs_of([_module(one) for one in run], most=_MOST_BOXES)
    boxes = [_Box(module, [run[index] for index in inside]) for module, inside in runs]
    place = {run[index].node["name"]: number for number, (_, inside) in enumerate(runs) for index in inside}
    edges = sorted(
        {
            (place[source], place[target])
            for source, target in document[graph]["edges"]
            if source in place and target in place and place[source] < place[target]
        }
    )
    layout = layered([box.width for box in boxes], _BOX, edges)
    title = f"{document['model']} {graph} {document['strategy']}" if document["plan"] else str(document["model"])
    note = count_text(len(run), "operation") + (f" in {len(boxes)} boxes" if len(boxes) < len(run) else "")
    width = max(layout.width, text_width(fit(title, 900, 16), 16), text_width(note, 11)) + 2 * _MARGIN
    height = layout.height + _HEAD + 2 * _MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'style="max-width:100%;height:auto" viewBox="0 0 {width:.0f} {height:.0f}" class="graph" role="img">',
            f"<title>{safe(title)}</title>",
            f"<style>{_STYLE}</style>",
            '<rect class="page" width="100%" height="100%"/>',
            text(_MARGIN, 30, fit(title, 900, 16), css="title"),
            text(_MARGIN, 50, note, css="quiet"),
            f'<g transform="translate({(width - layout.width) / 2:.1f} {_HEAD + _MARGIN / 2})">',
            *(_edge(path) for path in layout.paths.values()),
            *(part for box, centre in zip(boxes, layout.centres, strict=True) for part in box.draw(*centre)),
            "</g>",
            "</svg>\n",
        ]
    )


def _module(operation: Operation) -> str:
    node = operation.node
    return str(node["name"]) if node["op"] == "placeholder" else str(node["module"])


class _Box:
    """One operation, or a module's neighbouring ones."""

    def __init__(self, module: str, inside: Sequence[Operation]) -> None:
        first = inside[0].node
        self.inside = inside
        name = str(first["class"] or first["target"])
        if len(inside) > 1:
            self.label = module or ROOT
            facts = [count_text(len(inside), "operation")]
        else:
            self.label = (
                f"input {first['name']}" if first["op"] == "placeholder" else f"{name} {first['module']}".strip()
            )
            facts = [shape_text(first["shape"], first["dtype"])] if first["shape"] is not None else []
        size, flops = sum(one.param_bytes for one in inside), sum(one.node["flops"] for one in inside)
        facts += [bytes_text(size)] if size else []
        facts += [f"{flops_text(flops)} FLOPs"] if flops else []
        facts += ["computed again in backward"] if any(one.recomputed for one in inside) else []
        self.note = " · ".join(facts)
        self.buckets = sorted({bucket for one in inside for bucket in one.buckets})[:_MOST_STRIPES]
        self.css = "opaque" if any(one.node["opaque"] for one in inside) else "box"
        if first["op"] == "placeholder":
            self.css = "io"
        wanted = max(text_width(self.label, 12), text_width(self.note, 11)) + 26
        self.width = min(wanted, _WIDEST)

    def draw(self, x: float, y: float) -> Iterator[str]:
        """The box around its centre, with a stripe for each bucket that its gradients travel in."""
        left, top = x - self.width / 2, y - _BOX / 2
        yield f"<g>{tooltip(', '.join(str(one.node['name']) for one in self.inside[:20]))}"
        yield rect(left, top, self.width, _BOX, css=self.css)
        for place, bucket in enumerate(self.buckets):
            part = (_BOX - 4) / len(self.buckets)
            yield rect(left + 2, top + 2 + place * part, 5, part, fill=bucket_colour(bucket))
        yield text(left + 13, top + 17, fit(self.label, self.width - 18, 12))
        yield text(left + 13, top + 32, fit(self.note, self.width - 18, 11), css="quiet")
        yield "</g>"


def _edge(path: Sequence[tuple[float, float]]) -> str:
    x, y = path[0]
    line = f"M{x:.1f} {y:.1f}"
    for (x0, y0), (x1, y1) in itertools.pairwise(path):
        middle = (y0 + y1) / 2
        line += f"C{x0:.1f} {middle:.1f} {x1:.1f} {middle:.1f} {x1:.1f} {y1:.1f}"
    x, y = path[-1]
    return f'<path class="edge" d="{line}"/><path class="tip" d="M{x:.1f} {y:.1f}l-3.5 -7h7z"/>'
