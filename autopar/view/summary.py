"""What a transformation came to, in figures: for the terminal and, as data, for ``--json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from autopar.view.columns import GAP, print_columns
from autopar.view.counted import forward_flops_text, uncounted
from autopar.view.operations import sent_bytes, spec_bytes
from autopar.view.rows import launch_rows, module_rows
from autopar.view.units import bytes_text, count_text, share_text, shorten

__all__ = ["print_summary", "summary"]

_NARROW = 76  # columns under which the name of the first tensor is left out
_NUMBERS = 44  # columns that the numbers take
_SAID_ABOVE = ("AP204", "AP206", "AP209")  # the FLOPs of the second line, and the reasons for the table of buckets
_MOST_FOUND = 20  # a model with a frozen half has a finding for each of its parameters


def summary(document: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a graph document.

    Returns:
        ``model``, ``strategy``, ``front_end``, ``world_size``, ``nodes``, ``flops`` (one forward),
        ``flops_unknown`` (modules that these leave out), ``flops_text`` (both in words),
        ``parameter_bytes``, ``bytes_per_step`` (of gradients), ``sent_bytes_per_step`` (compressed or not),
        ``operation_level`` (share of the parameter bytes that the graph sees operation by operation, 0 to 1),
        ``buckets`` (``index``, ``parameters``, ``bytes``, ``compression`` (the pass, or empty), ``sent_bytes``,
        ``ready`` (share of the backward done by then, estimated from FLOPs; null where they are not known),
        ``first``, ``last``), ``local``, ``opaque``, and ``found``: what passes found out.
    """
    plan = document["plan"] or {"buckets": [], "parameters": [], "local": [], "options": {}}
    sizes = {spec["name"]: spec_bytes(spec) for spec in plan["parameters"]}
    total = sum(sizes.values())
    eager = {node["module"]: node["param_bytes"] for node in document["after"]["nodes"] if node["opaque"]}
    opaque = min(total, sum(eager.values()))
    flops = sum(node["flops"] for node in document["after"]["nodes"])
    missing = uncounted(document)
    return {
        "model": document["model"],
        "strategy": document["strategy"],
        "front_end": document["front_end"],
        "world_size": document["world_size"],
        "replicas": plan["options"].get("replicas"),
        "weight": plan["options"].get("weight"),
        "nodes": len(document["after"]["nodes"]),
        "flops": flops,
        "flops_unknown": missing,
        "flops_text": forward_flops_text(flops, missing),
        "parameter_bytes": total,
        "bytes_per_step": sum(bucket["nbytes"] for bucket in plan["buckets"]),
        "sent_bytes_per_step": sum(map(sent_bytes, plan["buckets"])),
        "operation_level": 1 - opaque / total if total else None,
        "buckets": _buckets(document, plan),
        "local": list(plan["local"]),
        "opaque": [
            {key: remark.get(key, "") for key in ("code", "module", "bytes", "message", "source", "mend")}
            for remark in document["remarks"]
            if remark["kind"] == "missed"
        ],
        "found": [
            {key: remark.get(key, "") for key in ("code", "stage", "module", "message", "source", "mend")}
            for remark in document["remarks"]
            if remark["kind"] == "analysis"
        ],
    }


def print_summary(figures: Mapping[str, Any], console: Console, *, files: Sequence[str] = ()) -> None:
    """Prints what ``summary`` returned, for people.

    Args:
        figures: see ``summary``.
        console: where to print.
        files: paths of the files that were written.
    """

    def line(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=not console.is_terminal)

    ranks = f" for {count_text(figures['world_size'], 'rank')}" if figures["world_size"] else ""
    replicas = f" with {count_text(figures['replicas'], 'replica')}" if figures["replicas"] else ""
    line(f"{figures['model']}: {figures['strategy']}{ranks}{replicas}", "bold")
    line(
        f"{count_text(figures['nodes'], 'node')}, {figures['flops_text']}, "
        f"{bytes_text(figures['parameter_bytes'])} of trainable parameters"
    )
    if figures["operation_level"] is not None:
        line(
            f"{share_text(figures['operation_level'])} of the parameter bytes are in operations that the compiler sees"
        )
    if figures["buckets"]:
        count = count_text(len(figures["buckets"]), "bucket")
        weighed = f", weighed by {figures['weight']}" if figures["weight"] else ""
        line(f"{count}, {bytes_text(figures['bytes_per_step'])} all-reduced a step{_compressed(figures)}{weighed}")
        line("")
        columns = _columns(figures["buckets"], console)
        print_columns(console, columns, right=("bucket", "tensors", "bytes", "ready at"))
        unknown = ", which are unknown here" if figures["flops_unknown"] else ""
        line(f"ready at: share of the backward done by then, estimated from FLOPs{unknown}", "dim")
    else:
        line("nothing travels between processes")
    for local in figures["local"]:
        line(f"{local['name']} stays local: {local['reason']}", "yellow")
    if figures["opaque"]:
        line("")
        line("opaque, run as plain PyTorch:", "bold")
    for one in figures["opaque"]:
        place = f" ({one['source']})" if one["source"] else ""
        line(f"- {one['message']}{place} {bytes_text(one['bytes'])}.{_code(one)}", "yellow")
        if one["mend"]:
            line(f"  {one['mend']}")
    found = [one for one in figures["found"] if one["code"] not in _SAID_ABOVE]
    if found:
        line("")
        line("found:", "bold")
    for one in found[:_MOST_FOUND]:
        place = f" ({one['source']})" if one["source"] else ""
        line(f"- {one['stage']}: {one['message']}{place}{_code(one)}")
        if one["mend"]:
            line(f"  {one['mend']}")
    if len(found) > _MOST_FOUND:
        line(f"- and {len(found) - _MOST_FOUND} more; --json has all")
    if files:
        line("")
        line(f"wrote {', '.join(files)}")


def _compressed(figures: Mapping[str, Any]) -> str:
    forms = dict.fromkeys(one["compression"] for one in figures["buckets"] if one["compression"])
    return f", sent as {bytes_text(figures['sent_bytes_per_step'])} by {', '.join(forms)}" if forms else ""


def _code(one: Mapping[str, Any]) -> str:
    return f" [{one['code']}]" if one["code"] else ""


def _columns(buckets: Sequence[Mapping[str, Any]], console: Console) -> dict[str, list[str]]:
    columns = {
        "bucket": [str(bucket["index"]) for bucket in buckets],
        "tensors": [f"{bucket['parameters']:,}" for bucket in buckets],
        "bytes": [bytes_text(bucket["sent_bytes"]) for bucket in buckets],
        "ready at": ["-" if bucket["ready"] is None else f"{bucket['ready']:.0%}" for bucket in buckets],
    }
    plain = not console.is_terminal
    names = ("first", "last") if plain or console.width >= _NARROW else ("last",)
    room = 10_000 if plain else (console.width - _NUMBERS) // len(names) - GAP
    return columns | {name: [shorten(bucket[name], room) for bucket in buckets] for name in names}


def _buckets(document: Mapping[str, Any], plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = module_rows(document)
    launched = launch_rows(document, rows)
    total = 0 if uncounted(document) else sum(row.backward_flops for row in rows)
    return [
        {
            "index": bucket["index"],
            "parameters": len(bucket["parameters"]),
            "bytes": bucket["nbytes"],
            "compression": bucket.get("compression", ""),
            "sent_bytes": sent_bytes(bucket),
            "ready": sum(row.backward_flops for row in rows[launched[bucket["index"]] :]) / total if total else None,
            "first": bucket["parameters"][0],
            "last": bucket["parameters"][-1],
        }
        for bucket in plan["buckets"]
    ]
