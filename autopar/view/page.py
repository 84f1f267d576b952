"""``graph.html``: the graph in one page that needs nothing else, neither a server nor a network.

The document goes into the page as data, which its script writes out as text only. The page's own
policy allows the two scripts that it was made with, by their sums, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from autopar.partitioner.rates import Rates
from autopar.view.measured import Measured
from autopar.view.measured_trace import shared_lines
from autopar.view.operations import sent_bytes
from autopar.view.packed import FIELDS, TEXT_FIELDS, Texts, packed_graph
from autopar.view.palette import BUCKET_COLOURS
from autopar.view.predict import predict
from autopar.view.svg import safe
from autopar.view.units import rates_text

__all__ = ["page_html"]

_MOST_NODES = 12_000
_SCRIPTS = ("data.js", "layout.js", "colours.js", "draw.js", "panel.js", "timeline.js", "main.js", "listen.js")


def page_html(document: Mapping[str, Any], measured: Measured | None = None) -> str:
    """The page as text, well below 2 MB for 5,000 nodes.

    Args:
        document: see ``autopar.view.graph_json``.
        measured: steps, of which the page shows the typical one beside the predicted one.
    """
    scripts = {"dagre": _library(), "script": "\n".join(_asset(name) for name in _SCRIPTS)}
    parts = {
        "hashes": " ".join(f"'sha256-{_sum(text)}'" for text in scripts.values()),
        "title": safe(f"{document['model']}: {document['strategy']}"),
        "style": _asset("style.css"),
        # A tag in a name must not end the element that the data stands in.
        "data": json.dumps(_data(document, measured), separators=(",", ":")).replace("<", "\\u003c"),
        **scripts,
    }
    pieces = _asset("page.html").split("{")
    return pieces[0] + "".join(parts[name] + rest for name, _, rest in (piece.partition("}") for piece in pieces[1:]))


def _data(document: Mapping[str, Any], measured: Measured | None) -> dict[str, Any]:
    step = predict(document)
    texts = Texts()
    graphs = {which: packed_graph(document, which, step, texts, most=_MOST_NODES) for which in ("after", "before")}
    counts = {which: len(document[which]["nodes"]) for which in graphs}
    folded = [f"{which} {counts[which]:,}" for which in graphs if counts[which] > _MOST_NODES]
    note = f"Neighbours of one module are drawn as one node, as the graph is large ({', '.join(folded)} nodes)."
    return {
        **{key: document[key] for key in ("model", "strategy", "world_size", "remarks")},
        "fields": FIELDS,
        "textFields": TEXT_FIELDS,
        **graphs,
        "texts": texts.all(),
        "counts": counts,
        "note": note if folded else "",
        "buckets": [
            {
                **{key: bucket[key] for key in ("index", "nbytes", "parameters")},
                "compression": bucket.get("compression", ""),
                "sent": sent_bytes(bucket),
            }
            for bucket in (document["plan"] or {"buckets": ()})["buckets"]
        ],
        "bucketColours": BUCKET_COLOURS,
        "passNames": sorted({node["created_by"] for which in graphs for node in document[which]["nodes"]}),
        "step": {
            "transfers": [
                {"bucket": one.bucket, "ready": one.ready * 1e6, "start": one.start * 1e6, "end": one.end * 1e6}
                for one in step.transfers
            ],
            "forward": [0.0, step.turn * 1e6],
            "backward": [step.turn * 1e6, step.computed * 1e6],
            "end": step.end * 1e6,
            "words": "predicted",
        },
        "measured": None if measured is None else _measured(measured),
        "rates": rates_text(Rates.from_json(document["rates"])),
    }


def _measured(measured: Measured) -> dict[str, Any]:
    """The typical step, in the form of the predicted one."""
    step, rank = measured.typical(), min(measured.ranks)

    def micros(*times: float) -> list[float]:
        return [(time - step.begin) * 1e6 for time in times]

    transfers = []
    for one, line in zip(step.buckets, shared_lines(step), strict=True):
        ready, start, end = micros(one.ready, one.sent, one.done)
        transfers.append({"bucket": one.index, "ready": ready, "start": start, "end": end, "line": line})
    return {
        "transfers": transfers,
        "forward": micros(*step.forward),
        "backward": micros(*step.backward),
        "end": micros(step.end)[0],
        "words": f"measured, step {step.number} of rank {rank}",
    }


@cache
def _asset(name: str) -> str:
    return files("autopar.view").joinpath("assets", *name.split("/")).read_text(encoding="utf-8")


def _library() -> str:
    """dagre without its last line, which points to a file that the page does not have."""
    return _asset("vendor/dagre.min.js").partition("//# sourceMappingURL")[0]


def _sum(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
