"""What was measured, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from benchmarks.measuring import Settings
from benchmarks.ranks import Samples
from benchmarks.summary import Spread, Summary, geometric_mean
from benchmarks.variants import VARIANTS
from benchmarks.workloads import WORKLOADS

__all__ = ["document", "footnote", "table", "write_json"]

# Of the JSON; raised when a field changes its meaning.
VERSION = 1


def table(summaries: Sequence[Summary], settings: Settings) -> Table:
    """One row a workload: median step of every variant, then the two ratios with their quartiles."""
    what = "forward, loss, backward" + (f", {settings.optimizer}" if settings.optimizer != "none" else "")
    result = Table("workload", title=f"Median step in ms ({what}); {settings.world_size} ranks, 1 thread each, CPU")
    headings = [*(variant.title for variant in VARIANTS), "autopar / DDP's best", "autopar / plain"]
    for heading in headings:
        result.add_column(heading, justify="right", no_wrap="/" in heading)
    for summary in summaries:
        result.add_row(
            summary.workload,
            *(_time(summary, variant.name) for variant in VARIANTS),
            _ratio(summary.to_best),
            _ratio(summary.to_plain),
        )
    return result


def footnote(summaries: Sequence[Summary], settings: Settings) -> str:
    """How to read the table, and the one number over all workloads."""
    return (
        "plain: no communication. DDP static and DDP one bucket also set gradient_as_bucket_view.\n"
        f"DDP's best is underlined. Ratios: median (quartiles) of {settings.rounds} rounds, interleaved.\n"
        f"Geometric mean of autopar / DDP's best: {geometric_mean(summaries):.3f}"
    )


def document(summaries: Sequence[Summary], samples: Samples, settings: Settings) -> dict[str, Any]:
    """Everything, the single steps included, in seconds unless a name says otherwise."""
    return {
        "version": VERSION,
        "machine": {
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "settings": asdict(settings),
        "geometric_mean_to_best": geometric_mean(summaries),
        "workloads": [
            {
                **asdict(summary),
                "about": WORKLOADS[summary.workload].summary,
                "steps": samples[summary.workload],
            }
            for summary in summaries
        ],
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write beside the file, then rename, so that a reader never sees half of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(path)


def _time(summary: Summary, variant: str) -> str:
    text = f"{summary.step_ms[variant].median:.2f}"
    return f"[underline]{text}[/underline]" if variant == summary.best else text


def _ratio(ratio: Spread) -> str:
    return f"{ratio.median:.3f} ({ratio.low:.2f} to {ratio.high:.2f})"
