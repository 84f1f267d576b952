"""The program as a table for the terminal: one row an operation, in the order in which they run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from autopar.view.columns import GAP, print_columns
from autopar.view.counted import forward_flops_text, uncounted
from autopar.view.operations import Operation, operations, sent_bytes, spec_bytes
from autopar.view.units import bytes_text, count_text, flops_text, shape_text, shorten

__all__ = ["print_table"]

_INSIDE = "· "  # before an operation that runs in the opaque call below it
_NAMES = 26  # characters that module and operation need to stay readable; columns are dropped for them
_COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")


def print_table(document: Mapping[str, Any], console: Console, *, graph: str = "after") -> None:
    """Prints a graph document as a table.

    On a terminal the table fits its width, down to 60 columns; in a pipe every cell is whole and
    there is no decoration.

    Args:
        document: see ``autopar.view.graph_json``.
        console: where to print.
        graph: ``"after"`` or ``"before"``.
    """
    found = operations(document, graph)
    columns = _columns(found)
    if console.is_terminal:
        _fit(columns, console.width)
    print_columns(console, columns, right=_NUMBERS, styles=[_style(one) for one in found])
    console.print(_totals(document, found), highlight=False, soft_wrap=not console.is_terminal)


_NUMBERS = ("params", "FLOPs", "bucket")


def _columns(found: list[Operation]) -> dict[str, list[str]]:
    """The cells by column, whole."""
    nodes = [operation.node for operation in found]
    calls = {node["name"]: node for node in nodes if node["opaque"]}
    return {
        "module": [node["module"] or "-" for node in nodes],
        "operation": [f"{_INSIDE * _depth(one.node, calls)}{_operation(one)}" for one in found],
        "output": [shape_text(node["shape"], node["dtype"]) for node in nodes],
        "params": [bytes_text(one.param_bytes) if one.param_bytes else "-" for one in found],
        "FLOPs": [flops_text(node["flops"]) if node["flops"] else "-" for node in nodes],
        "bucket": [_buckets(operation.buckets) for operation in found],
    }


def _fit(columns: dict[str, list[str]], width: int) -> None:
    """Drops columns and shortens names until the table is at most ``width`` columns wide."""
    names = min(_NAMES, _length(columns, "module") + _length(columns, "operation"))

    def room() -> int:
        fixed = sum(_length(columns, name) for name in columns if name not in ("module", "operation"))
        return width - fixed - GAP * (len(columns) - 1)

    if room() < names:
        del columns["FLOPs"]
    if room() < names:
        columns["output"] = [text.split(" ")[0] for text in columns["output"]]
    for name in ("params", "output"):
        if room() < names:
            del columns[name]
    operation = min(_length(columns, "operation"), max(room() // 2, room() - _length(columns, "module")))
    columns["operation"] = [shorten(text, operation) for text in columns["operation"]]
    columns["module"] = [shorten(text, room() - operation) for text in columns["module"]]


def _length(columns: Mapping[str, list[str]], name: str) -> int:
    return max(map(len, [name, *columns[name]]))


def _depth(node: Mapping[str, Any], calls: Mapping[str, Mapping[str, Any]]) -> int:
    """How many opaque calls an operation of an island runs in."""
    around = calls.get(node.get("inside") or "")
    return 0 if around is None else 1 + _depth(around, calls)


def _operation(operation: Operation) -> str:
    node = operation.node
    name = node["class"] or (node["name"] if node["op"] == "placeholder" else node["target"])
    if node["op"] == "placeholder":
        return f"input {name}"
    mark = " (opaque)" if node["opaque"] else " (recomputed)" if operation.recomputed else ""
    return f"{name}{mark}"


def _style(operation: Operation) -> str:
    if operation.sync:
        return _COLOURS[operation.buckets[0] % len(_COLOURS)]
    return "reverse" if operation.node["opaque"] else ""


def _buckets(buckets: tuple[int, ...]) -> str:
    if len(buckets) > 2:
        return f"{buckets[0]}..{buckets[-1]}"
    return ",".join(map(str, buckets)) or "-"


def _totals(document: Mapping[str, Any], found: list[Operation]) -> str:
    plan = document["plan"] or {}
    parts = [
        f"{document['model']}: {count_text(sum(not one.sync for one in found), 'operation')}",
        forward_flops_text(sum(one.node["flops"] for one in found), uncounted(document)),
    ]
    if plan:
        buckets = plan["buckets"]
        parts.append(f"{bytes_text(sum(map(spec_bytes, plan['parameters'])))} of trainable parameters")
        parts.append(f"{count_text(len(buckets), 'bucket')}, {bytes_text(sum(map(sent_bytes, buckets)))} a step")
    return "; ".join(parts) + "."
