"""What became of each test, as rows in a file and as the page docs/parity.md."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.parity.expected import SLOW

__all__ = ["PAGE", "Row", "read", "render", "surprises", "write"]

PAGE = Path(__file__).parents[2] / "docs" / "parity.md"


@dataclass(frozen=True, slots=True)
class Row:
    """One test on some ranks.

    Attributes:
        name: of the test.
        world_size: how many ranks.
        verdict: ``"passed"``, ``"failed"`` or ``"skipped"``.
        reason: the error, or why it was skipped.
        excluded: why it is not expected to pass; empty where it is.
    """

    name: str
    world_size: int
    verdict: str
    reason: str
    excluded: str

    @property
    def outcome(self) -> str:
        """The verdict, or ``"excluded"`` for a failure that was to be expected."""
        return "excluded" if self.verdict == "failed" and self.excluded else self.verdict

    @property
    def headline(self) -> str:
        """The first line of the reason."""
        return self.reason.strip().split("\n")[0][:160]


def write(file: Path, rows: Sequence[Row]) -> None:
    """Stores rows as JSON."""
    file.write_text(json.dumps([dataclasses.asdict(row) for row in rows]), encoding="utf-8")


def read(file: Path) -> list[Row]:
    """The rows that ``write`` stored."""
    return [Row(**row) for row in json.loads(file.read_text(encoding="utf-8"))]


def surprises(rows: Sequence[Row]) -> list[str]:
    """What is not as expected, a line each."""
    if not rows:
        return ["no test was run"]
    failed = [
        f"{row.name} failed on {row.world_size} ranks: {row.headline}"
        for row in rows
        if row.verdict == "failed" and not row.excluded
    ]
    passed = [
        f"{row.name} passed on {row.world_size} ranks, but is excluded because it {row.excluded}"
        for row in rows
        if row.verdict == "passed" and row.excluded
    ]
    return failed + passed


def render(rows: Sequence[Row]) -> str:
    """The page."""
    sizes = sorted({row.world_size for row in rows})
    lines = [
        "# torch's own tests of DDP on the drop-in",
        "",
        "torch ships the tests of `DistributedDataParallel` in its wheel. `make parity` runs those of them that build",
        "a DDP module with `autopar.nn.DistributedDataParallel` in its place, on the CPU over gloo; tests that torch",
        "runs on GPUs only get the CPU for one. That command writes this page; "
        f"it ran with torch {torch.__version__.partition('+')[0]}.",
        "",
        "| ranks | passed | failed | excluded | skipped by torch |",
        "|---|---|---|---|---|",
    ]
    for size in sizes:
        mine = [row for row in rows if row.world_size == size]
        outcomes = [row.outcome for row in mine] + ["excluded"] * len(SLOW)
        passed, failed, excluded, skipped = map(outcomes.count, ("passed", "failed", "excluded", "skipped"))
        lines.append(f"| {size} | {passed} | {failed} | {excluded} | {skipped} |")
    lines += ["", "## Every test", "", f"| test | {' | '.join(f'{size} ranks' for size in sizes)} | why not |"]
    lines.append("|---|" + "---|" * len(sizes) + "---|")
    names = dict.fromkeys(row.name for row in rows)
    for name in names:
        mine = {row.world_size: row for row in rows if row.name == name}
        cells = [mine[size].outcome if size in mine else "not run" for size in sizes]
        skipped = next((row.headline for row in mine.values() if row.verdict == "skipped"), "")
        why = next((row.excluded for row in mine.values() if row.excluded), "") or skipped
        lines.append(f"| `{name}` | {' | '.join(cells)} | {why} |")
    for name, why in SLOW.items():
        lines.append(f"| `{name}` | {' | '.join(['excluded'] * len(sizes))} | {why} |")
    return "\n".join(lines) + "\n"
