"""The table and the JSON."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.measuring import Settings
from benchmarks.report import document, footnote, table, write_json
from benchmarks.summary import summarise
from benchmarks.variants import VARIANTS, torch_ddp

SAMPLES = {"deep": {variant.name: [[0.001 * (number + 1)]] for number, variant in enumerate(VARIANTS)}}
SUMMARY = summarise("deep", SAMPLES["deep"], subject="autopar", plain="plain", references=torch_ddp())


def test_table_shows_times_and_ratios() -> None:
    """One row has every variant's median in ms and both ratios."""
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table([SUMMARY], Settings()))
    (row,) = (line for line in capture.get().splitlines() if "deep" in line)
    cells = [cell.strip() for cell in row.split("│")[1:-1]]
    assert cells[:6] == ["deep", "1.00", "2.00", "3.00", "4.00", "5.00"]
    assert cells[6:] == ["2.500 (2.50 to 2.50)", "5.000 (5.00 to 5.00)"]


def test_footnote_has_the_mean() -> None:
    """The number over all workloads stands under the table."""
    assert footnote([SUMMARY], Settings()).endswith("Geometric mean of autopar / DDP's best: 2.500")


def test_json_round_trips(tmp_path: Path) -> None:
    """The document can be written, replaced and read; nothing else stays in the folder."""
    content = document([SUMMARY], SAMPLES, Settings(rounds=1))
    write_json(tmp_path / "a.json", {})
    write_json(tmp_path / "a.json", content)
    assert json.loads((tmp_path / "a.json").read_text()) == content
    assert content["settings"]["rounds"] == 1
    assert content["workloads"][0]["to_best"]["median"] == pytest.approx(2.5)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
