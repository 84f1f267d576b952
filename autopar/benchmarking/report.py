"""What was measured, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from autopar.benchmarking.columns import Column, subjects
from autopar.benchmarking.measuring import Settings
from autopar.benchmarking.ranks import Measured
from autopar.benchmarking.summary import Spread, Summary, geometric_mean
from autopar.view.units import count_text

__all__ = ["REPORT_VERSION", "document", "footnote", "machine", "table", "write_json"]

REPORT_VERSION = 3  # of the JSON; version 2 had one best of torch's columns, version 1 one column of autopar's


def table(summaries: Sequence[Summary], columns: Sequence[Column], settings: Settings) -> Table:
    """Models side by side: median steps by column, then the ratios with their quartiles, then memory."""
    what = "forward, loss, backward" + (f", {settings.optimizer}" if settings.optimizer != "none" else "")
    result = Table("", title=f"Median step in ms ({what}); {settings.nproc} ranks, 1 thread each, CPU")
    for summary in summaries:
        result.add_column(summary.model, justify="right")
    for column in columns:
        result.add_row(column.title, *(_time(summary, column.name) for summary in summaries))
    names = [(column, "autopar" if column.title == "autopar" else f"autopar, {column.title}") for column in columns]
    ours = [(column.name, title) for column, title in names if column.kind == "subject"]
    kind = {column.name: "compiled " if column.compiled else "" for column in columns}
    result.add_section()
    for name, title in ours:
        if any(name in summary.to_best for summary in summaries):
            ratios = (_ratio(summary.to_best.get(name)) for summary in summaries)
            result.add_row(f"{title} / {kind[name]}DDP's best", *ratios)
    for name, title in ours:
        if any(name in summary.to_plain for summary in summaries):
            ratios = (_ratio(summary.to_plain.get(name)) for summary in summaries)
            result.add_row(f"{title} / {kind[name]}plain", *ratios)
    result.add_section()
    for column in columns:
        if any(column.name in summary.exposed_ms for summary in summaries):
            cells = (_exposed(summary.exposed_ms.get(column.name)) for summary in summaries)
            result.add_row(f"{column.title}, ms exposed", *cells)
    result.add_section()
    for column in columns:
        if any(column.name in summary.peak_mib for summary in summaries):
            peaks = (summary.peak_mib.get(column.name) for summary in summaries)
            result.add_row(f"{column.title}, peak MiB", *("" if peak is None else f"{peak:.0f}" for peak in peaks))
    result.add_section()
    for column in columns:
        if any(column.name in summary.graphs for summary in summaries):
            counts = (summary.graphs.get(column.name, "") for summary in summaries)
            result.add_row(f"{column.title}, graphs", *map(str, counts))
    return result


def footnote(summaries: Sequence[Summary], columns: Sequence[Column], settings: Settings) -> str:
    """How to read the table, the numbers over all models, and what is not in it."""
    lines = [
        "plain: no communication. DDP static and DDP one bucket also set gradient_as_bucket_view.",
        f"DDP's best is underlined. Ratios: median (quartiles) of {count_text(settings.rounds, 'round')}, interleaved.",
        "Exposed: what a step takes beyond the plain module's.",
    ]
    if any(column.alone for column in columns):
        lines.append(f"Alone: one process with {settings.nproc} threads and one rank's batch, while the others wait.")
    if any(column.compiled for column in columns):
        lines.append("Compiled: through torch.compile, and compared with what is, too; graphs: of a forward.")
    for column in subjects(columns):
        mean = geometric_mean(summaries, column.name)
        if mean is not None and len(summaries) > 1:
            best = "compiled DDP's best" if column.compiled else "DDP's best"
            lines.append(f"Geometric mean of {column.name} / {best}: {mean:.3f}")
    for summary in summaries:
        lines += [f"{summary.model}, {name}: not measured: {reason}" for name, reason in summary.skipped.items()]
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """Where it was measured, and with which versions."""
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "autopar": version("autopar"),
    }


def document(
    summaries: Sequence[Summary],
    measured: Mapping[str, Measured],
    settings: Settings,
    *,
    where: Mapping[str, Any],
    about: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Everything, the single steps included, in seconds unless a name says otherwise.

    Args:
        summaries: of the models.
        measured: by model.
        settings: how it was measured.
        where: what ``machine`` said before anything was measured.
        about: a line on each model.
    """
    return {
        "version": REPORT_VERSION,
        "machine": dict(where),
        "settings": asdict(settings),
        "models": [
            {**asdict(one), "about": (about or {}).get(one.model, ""), "steps": measured[one.model].steps}
            for one in summaries
        ],
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes beside the file, then renames, so that a reader never sees half of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(path)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _time(summary: Summary, column: str) -> str:
    if column not in summary.step_ms:
        return ""
    text = f"{summary.step_ms[column].median:.2f}"
    return f"[underline]{text}[/underline]" if column in summary.best else text


def _ratio(ratio: Spread | None) -> str:
    return "" if ratio is None else f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def _exposed(spread: Spread | None) -> str:
    return "" if spread is None else f"{spread.median:.2f}"
