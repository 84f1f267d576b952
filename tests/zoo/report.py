"""Writes ``docs/coverage.md`` from the outcomes of all checks, and reads shares back from it."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.libraries import version
from tests.zoo.difference import LIMIT, Difference
from tests.zoo.entry import Entry
from tests.zoo.known_failures import KNOWN_FAILURES
from tests.zoo.one_process import Outcome

__all__ = ["PAGE", "Row", "recorded_shares", "render"]

PAGE = Path(__file__).parents[2] / "docs" / "coverage.md"
_WELL = 0.95
_HEADS = (
    "model", "library", "parameters", "front end", "operations", "opaque calls", "why", "capture s", "step s",
    "to plain", "to DDP",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """All that is known of one model.

    Attributes:
        entry: the model.
        outcome: of the check in one process; None where it failed.
        ranks: difference to DDP on each rank; empty where the check failed.
        failure: the last line of what the failing check raised; empty where none failed.
    """

    entry: Entry
    outcome: Outcome | None
    ranks: Sequence[Difference]
    failure: str = ""

    @property
    def passed(self) -> bool:
        """Whether both checks ended within the limit."""
        return self.outcome is not None and bool(self.ranks) and self.worst.ulps <= LIMIT

    @property
    def worst(self) -> Difference:
        """The largest difference of both checks."""
        found = [self.outcome.difference] if self.outcome is not None else []
        return max([*found, *self.ranks], key=lambda one: one.ulps, default=Difference())

    @property
    def share(self) -> float:
        """Share of the parameter bytes at operation level; 0 where the check failed."""
        return self.outcome.measures.operation_level if self.outcome is not None else 0.0


def render(rows: Sequence[Row]) -> str:
    """The page, in Markdown."""
    ordered = sorted(rows, key=lambda row: (-row.share, row.entry.library, row.entry.name))
    return "\n".join([*_head(rows), *_reasons(rows), *_failures(rows), *_table(ordered), ""])


def _head(rows: Sequence[Row]) -> list[str]:
    measured = [row.outcome.measures for row in rows if row.outcome is not None]
    total = sum(one.parameter_bytes for one in measured)
    hidden = sum(one.opaque_bytes for one in measured)
    mean = sum(row.share for row in rows) / len(rows)
    well = sum(row.share > _WELL for row in rows) / len(rows)
    whole = sum(row.outcome is not None and row.outcome.measures.front_end == "opaque" for row in rows)
    libraries = dict.fromkeys(row.entry.library for row in rows if row.entry.library != "torch")
    versions = [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    versions += [f"{library} {version(library)}" for library in libraries]
    return [
        "# Coverage",
        "",
        "Written by `make zoo`: models of other people's, built small from their configurations, in train mode.",
        "",
        "| | |",
        "|---|---|",
        f"| models run | {len(rows)} |",
        f"| within {LIMIT:g} ULP of the plain model and of torch's DDP | {sum(row.passed for row in rows)} |",
        f"| share of all parameter bytes at operation level | {1 - hidden / total if total else 0:.1%} |",
        f"| mean of the models' shares | {mean:.1%} |",
        f"| models above {_WELL:.0%} | {well:.1%} |",
        f"| models that run whole as one opaque call | {whole} |",
        "",
        f"{', '.join(versions)}.",
        "",
        "- *operations*: share of the trainable parameters' bytes that only operations read, those of graphs inside of",
        "  opaque calls (islands) among them. A parameter that eager code owns, alone or beside operations, does not",
        "  count. A model that failed counts as 0, but not in the share of all bytes, where large models weigh more.",
        "- *to plain*: one process through autopar against the plain model: loss, gradients, buffers and random",
        "  numbers, over two batches of different sizes. Where the whole model is one opaque call, that says little.",
        "- *to DDP*: two ranks with their own data against torch's DistributedDataParallel: loss and gradients.",
        "- Differences are in units in the last place of the tensor's largest magnitude; 0 means equal bit for bit.",
        "- *capture s* is capture with its gate and all passes; *step s* an eager step. Both on one busy core.",
        "",
    ]


def _reasons(rows: Sequence[Row]) -> list[str]:
    models: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for row in rows:
        if row.outcome is not None:
            models.update(row.outcome.measures.remarks.keys())
            calls.update(row.outcome.measures.remarks)
    lines = [f"| {models[reason]} | {calls[reason]} | {_cell(reason)} |" for reason in _by_models(models, calls)]
    return ["## Why calls stay opaque", "", "| models | calls | reason |", "|--:|--:|---|", *lines, ""]


def _by_models(models: Mapping[str, int], calls: Mapping[str, int]) -> list[str]:
    return sorted(models, key=lambda reason: (-models[reason], -calls[reason], reason))


def _failures(rows: Sequence[Row]) -> list[str]:
    lines = [
        f"- {row.entry.name}: {KNOWN_FAILURES.get(row.entry.name, 'not known before')}. {_cell(row.failure)}".rstrip()
        for row in rows
        if not row.passed
    ]
    return ["## What fails", "", *lines, ""] if lines else []


def _table(rows: Sequence[Row]) -> list[str]:
    return [
        "## Models",
        "",
        f"| {' | '.join(_HEADS)} |",
        "|---|---|--:|---|--:|---|---|--:|--:|--:|--:|",
        *map(_line, rows),
    ]


def _line(row: Row) -> str:
    cells = [row.entry.name, row.entry.library]
    if row.outcome is None:
        cells += ["", "", "failed", "", "", "", "", ""]
    else:
        found = row.outcome.measures
        cells += [
            f"{found.parameters:,}",
            found.front_end,
            f"{row.share:.1%}",
            _opaque(row.outcome),
            "; ".join(_counted(reason, count) for reason, count in found.remarks.items()),
            f"{row.outcome.capture_seconds:.2f}",
            f"{row.outcome.eager_seconds:.3f}",
            f"{row.outcome.difference.ulps:.3g}",
        ]
    cells.append(f"{max(one.ulps for one in row.ranks):.3g}" if row.ranks else "failed")
    return f"| {' | '.join(map(_cell, cells))} |"


def _opaque(outcome: Outcome) -> str:
    calls = outcome.measures.opaque
    shown = ", ".join(f"{call.path or 'the model'} ({call.nbytes:,} B)" for call in calls[:2])
    more = f", {len(calls) - 2} more" if len(calls) > 2 else ""
    return f"{len(calls)}: {shown}{more}" if calls else "0"


def _counted(reason: str, count: int) -> str:
    return f"{count} x {reason}" if count > 1 else reason


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def recorded_shares() -> dict[str, float]:
    """The share at operation level that the page has for each model that did not fail."""
    rows = PAGE.read_text(encoding="utf-8").split("## Models", 1)[-1].splitlines()
    cells = [[cell.strip() for cell in row.split(" | ")] for row in rows if row.startswith("| ")]
    column = _HEADS.index("operations")
    return {
        row[0].removeprefix("| "): float(row[column].rstrip("%")) / 100 for row in cells if row[column].endswith("%")
    }
