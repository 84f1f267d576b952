"""The graph document, ``graph.json``: everything that a picture or a table needs, as plain JSON.

``docs/graph-json.md`` has every field of version 2. Written by ``autopar transform``; whoever reads
it needs no torch.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from autopar.errors import ModelError, PlanError
from autopar.partitioner.plan import Plan
from autopar.partitioner.rates import Rates
from autopar.partitioner.typed import read_typed
from autopar.view.nodes import fill_in, graph_of, source_text

if TYPE_CHECKING:
    from autopar.compilation import Compilation
    from autopar.program import Program, Remark

__all__ = ["GRAPH_VERSION", "graph_document", "program_document", "read_document", "write_document"]

GRAPH_VERSION = 2
_FORMAT = "autopar-graph"
_KEYS = ("model", "strategy", "front_end", "world_size", "rates", "plan", "before", "after", "remarks", "passes")
_NODE: dict[str, Any] = {
    "name": str, "op": str, "target": str, "class": str | None, "module": str, "source": str | None,
    "shape": list[int] | None, "dtype": str | None, "device": str | None, "bytes": int, "param_bytes": int,
    "flops": int, "bucket": int | None, "replica": int | None, "opaque": bool, "created_by": str, "code": str | None,
}  # fmt: skip
_HEAD: dict[str, Any] = {
    "model": str, "strategy": str, "front_end": str, "world_size": int | None, "remarks": list[Any],
    "passes": list[Any],
}  # fmt: skip
_REMARK: dict[str, Any] = {
    "kind": str, "stage": str, "message": str, "module": str, "source": str | None, "mend": str, "bytes": int,
}  # fmt: skip
_PASS: dict[str, Any] = {"name": str}
_MEND = "Give a graph.json that `autopar transform` wrote, or the model's file."


def graph_document(
    compilation: Compilation, *, strategy: str, world_size: int | None = None, rates: Rates | None = None
) -> dict[str, Any]:
    """Everything that a compilation made, as JSON values.

    Args:
        compilation: what ``autopar.compilation.compile_program`` returned.
        strategy: registered name of the strategy.
        world_size: number of ranks, where it is known.
        rates: speeds to predict times with; by default those assumed for the model's device.
    """
    before, after = graph_of(compilation.before), graph_of(compilation.program)
    fill_in(before["nodes"], after["nodes"])
    document = _document(compilation.lowered, before, after, rates)
    return {
        **document,
        "strategy": strategy,
        "world_size": world_size,
        "passes": [dataclasses.asdict(record) for record in compilation.records],
    }


def program_document(program: Program) -> dict[str, Any]:
    """The document of one program as it is: what it was before, and which strategy it has, nobody knows."""
    graph = graph_of(program)
    return _document(program, graph, graph, None)


def _document(program: Program, before: dict[str, Any], after: dict[str, Any], rates: Rates | None) -> dict[str, Any]:
    plan = program.plan
    device = next((node["device"] for node in after["nodes"] if node["device"]), "cpu")
    return {
        "format": _FORMAT,
        "version": GRAPH_VERSION,
        "autopar": version("autopar"),
        "model": program.name,
        "strategy": "no strategy" if plan is None else plan.strategy,
        "front_end": program.front_end,
        "world_size": None,
        "rates": (rates or Rates.assumed(device)).to_json(),
        "plan": None if plan is None else json.loads(plan.to_json()),
        "before": before,
        "after": after,
        "remarks": [_remark(remark) for remark in program.remarks],
        "passes": [],
    }


def write_document(document: Mapping[str, Any]) -> str:
    """The document as JSON text, one node a line, so that two of them can be compared by line."""
    parts = []
    for key, value in document.items():
        if key in ("before", "after"):
            inner = ",\n".join(f"  {json.dumps(name)}: {_lines(value[name], '  ')}" for name in ("nodes", "edges"))
            text = f"{{\n{inner}\n }}"
        elif key in ("remarks", "passes"):
            text = _lines(value, " ")
        else:
            text = json.dumps(value)
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def read_document(text: str, *, name: str = "The file") -> dict[str, Any]:
    """Reads what ``write_document`` wrote.

    Args:
        text: the JSON text.
        name: where it came from, for messages.

    Raises:
        ModelError: the text is no graph document, or one of another version.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise ModelError(f"{name} is not JSON ({where}).", mend=_MEND) from None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ModelError(f"{name} is JSON but no graph of autopar's.", mend=_MEND)
    if document.get("version") != GRAPH_VERSION:
        raise ModelError(
            f"{name} has version {document.get('version')!r}; this autopar reads version {GRAPH_VERSION}.",
            mend="Run `autopar transform` again to make a new one.",
        )
    missing = [key for key in _KEYS if key not in document]
    if missing:
        raise ModelError(f"{name} is damaged: it has no {', '.join(missing)}.", mend=_MEND)
    for which in ("before", "after"):
        _check_graph(document[which], f"{name} is damaged: its graph {which!r}")
    try:
        Rates.from_json(document["rates"])
    except (KeyError, TypeError, ValueError):
        raise ModelError(f"{name} is damaged: its rates are no positive numbers.", mend=_MEND) from None
    try:
        plan = None if document["plan"] is None else Plan.from_values(document["plan"])
        _check_head(document, None if plan is None else len(plan.buckets))
    except (PlanError, TypeError) as error:
        raise ModelError(f"{name} is damaged: {str(error).partition(' Run `')[0].rstrip('.')}.", mend=_MEND) from None
    return document


def _check_head(document: Mapping[str, Any], buckets: int | None) -> None:
    for key, wanted in _HEAD.items():
        read_typed(wanted, document[key], key)
    for key, fields in (("remarks", _REMARK), ("passes", _PASS)):
        for index, record in enumerate(document[key]):
            _check_fields(record, fields, f"{key}[{index}]")
    for which in ("before", "after"):
        for index, node in enumerate(document[which]["nodes"]):
            place = f"{which}.nodes[{index}]"
            _check_fields(node, _NODE, place)
            index_of = node["bucket"]
            if buckets is not None and index_of is not None and not 0 <= index_of < buckets:
                raise TypeError(f"{place}.bucket is {index_of}, which the plan does not have")


def _check_fields(record: Any, fields: Mapping[str, Any], place: str) -> None:
    read_typed(dict[str, Any], record, place)
    for name, wanted in fields.items():
        if name not in record:
            raise TypeError(f"{place} has no {name}")
        read_typed(wanted, record[name], f"{place}.{name}")


def _check_graph(graph: Any, what: str) -> None:
    lists = isinstance(graph, dict) and all(isinstance(graph.get(key), list) for key in ("nodes", "edges"))
    if not lists:
        raise ModelError(f"{what} has no nodes and edges.", mend=_MEND)
    if not all(isinstance(node, dict) and node.keys() >= _NODE.keys() for node in graph["nodes"]):
        raise ModelError(f"{what} has a node without all its fields.", mend=_MEND)
    names = {str(node["name"]) for node in graph["nodes"]}
    if len(names) < len(graph["nodes"]):
        raise ModelError(f"{what} has two nodes of one name.", mend=_MEND)
    for edge in graph["edges"]:
        if not isinstance(edge, list) or len(edge) != 2 or not names.issuperset(map(str, edge)):
            raise ModelError(f"{what} has the edge {edge}, whose ends are no nodes.", mend=_MEND)


def _lines(items: Iterable[Any], indent: str) -> str:
    rows = [f"{indent} {json.dumps(item)}" for item in items]
    return "[\n" + ",\n".join(rows) + f"\n{indent}]" if rows else "[]"


def _remark(remark: Remark) -> dict[str, Any]:
    return {
        "kind": remark.kind,
        "stage": remark.stage,
        "message": remark.message,
        "module": remark.module_path,
        "source": source_text(remark.source),
        "mend": remark.mend,
        "bytes": remark.nbytes,
        "code": remark.code,
    }
