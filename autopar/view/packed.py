"""The graphs of a document as ``graph.html`` carries them: rows of numbers, each text once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autopar.view.operations import operations
from autopar.view.predict import Step
from autopar.view.runs import runs_of
from autopar.view.units import count_text, shape_text

__all__ = ["FIELDS", "TEXT_FIELDS", "Texts", "packed_graph"]

TEXT_FIELDS = ("name", "op", "target", "class", "module", "source", "shape", "device", "region", "created_by", "code")
FIELDS = (
    *TEXT_FIELDS,
    *("bytes", "flops", "replica", "opaque", "used_bytes", "buckets", "state", "sync", "times"),
)

Node = Mapping[str, Any]


class Texts:
    """A table of texts, each once."""

    def __init__(self) -> None:
        self._index: dict[str, int] = {}

    def number(self, text: str | None) -> int | None:
        """The text's place in the table."""
        return None if text is None else self._index.setdefault(text, len(self._index))

    def all(self) -> list[str]:
        """The table."""
        return list(self._index)


def packed_graph(document: Mapping[str, Any], which: str, step: Step, texts: Texts, *, most: int) -> dict[str, Any]:
    """Nodes as rows in the order of ``FIELDS``, edges as a flat list of pairs of positions.

    Args:
        document: see ``autopar.view.graph_json``.
        which: ``"after"`` or ``"before"``.
        step: the predicted step, whose times the nodes of ``after`` get.
        texts: where the texts are put.
        most: nodes that are carried; of more, neighbours of one module become one.
    """
    nodes = document[which]["nodes"]
    facts = _facts(document, which, step)
    rows = [_row(node, facts.get(node["name"])) for node in nodes]
    runs = _runs(rows, most)
    place = {nodes[index]["name"]: number for number, (_, run) in enumerate(runs) for index in run}
    edges = {(place[source], place[target]): None for source, target in document[which]["edges"]}
    merged = [_merged(module, [rows[index] for index in run]) for module, run in runs]
    return {
        "nodes": [[texts.number(row[key]) if key in TEXT_FIELDS else row[key] for key in FIELDS] for row in merged],
        "edges": [end for edge in edges if edge[0] != edge[1] for end in edge],
    }


def _runs(rows: Sequence[Mapping[str, Any]], most: int) -> list[tuple[str, list[int]]]:
    """What is drawn as one node: module and positions of each, in order.

    What reads and hands out parameters stands between the operations, but takes nothing from them: runs of the
    one may reach over runs of the other, and still no cycle comes of it.
    """
    if len(rows) <= most:
        return [(row["module"], [index]) for index, row in enumerate(rows)]
    found = []
    for state in (0, 1):
        places = [index for index, row in enumerate(rows) if row["state"] == state]
        cut = runs_of([rows[index]["module"] for index in places], most=most // 2)
        found += [(module, places[run.start : run.stop]) for module, run in cut]
    return sorted(found, key=lambda one: one[1][0])


def _facts(document: Mapping[str, Any], which: str, step: Step) -> dict[str, dict[str, Any]]:
    """What the document says of an operation only by way of others: its parameters, its times."""
    found: dict[str, dict[str, Any]] = {}
    for one in operations(document, which):
        buckets = list(one.buckets)
        found[one.node["name"]] = {
            "used_bytes": one.param_bytes,
            "buckets": buckets,
            "state": one.sync,
            "sync": one.sync,
        }
    for node in document[which]["nodes"]:
        if node["op"] == "output":
            found[node["name"]] = {"used_bytes": 0, "buckets": [], "state": False, "sync": False}
    if which == "after":
        for offset, spans in ((0, step.forward), (2, step.backward)):
            for span in spans:
                times = found[span.operation.node["name"]].setdefault("times", [0.0, 0.0, 0.0, 0.0])
                times[offset : offset + 2] = [round(span.start * 1e6, 1), round(span.end * 1e6, 1)]
    return found


def _row(node: Node, facts: Mapping[str, Any] | None) -> dict[str, Any]:
    row = {key: node.get(key) for key in FIELDS}
    row["shape"] = None if node["shape"] is None else shape_text(node["shape"], node["dtype"])
    row["opaque"] = int(node["opaque"])
    if facts is None:  # it reads or hands out a parameter
        buckets = [] if node["bucket"] is None else [node["bucket"]]
        return {**row, "used_bytes": node["param_bytes"], "buckets": buckets, "state": 1, "sync": 0}
    return {**row, **facts, "state": int(facts["state"]), "sync": int(facts["sync"])}


def _merged(module: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if len(rows) == 1:
        return rows[0]
    first, computing = rows[0], [row for row in rows if not row["state"]]
    times = [row["times"] for row in computing if row["times"]]
    return {
        **first,
        "op": "folded",
        "target": count_text(len(rows), "node"),
        "class": None,
        "module": module,
        "shape": None,
        "code": None,
        "bytes": sum(row["bytes"] for row in rows),
        "flops": sum(row["flops"] for row in rows),
        "opaque": max(row["opaque"] for row in rows),
        "used_bytes": sum(row["used_bytes"] for row in computing),
        "buckets": sorted({bucket for row in rows for bucket in row["buckets"]}),
        "state": int(not computing),
        "sync": 0,
        "times": [_earliest(times, 0), max(t[1] for t in times), _earliest(times, 2), max(t[3] for t in times)]
        if times
        else None,
    }


def _earliest(times: Sequence[Sequence[float]], place: int) -> float:
    return min((one[place] for one in times if one[place + 1]), default=0.0)
