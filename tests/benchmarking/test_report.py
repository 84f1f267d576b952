"""The table, the JSON and the chart."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from rich.console import Console

from autopar.benchmarking.chart import chart_svg
from autopar.benchmarking.measuring import Settings
from autopar.benchmarking.report import document, footnote, machine, table, write_json
from tests.benchmarking.measured import COLUMNS, MEASURED, SUMMARY

SETTINGS = Settings(rounds=2, steps=2)


def _document() -> dict[str, object]:
    where = machine()
    return document([SUMMARY], {"deep": MEASURED}, SETTINGS, where=where, about={"deep": "64 layers"})


def test_table_shows_times_ratios_and_memory() -> None:
    """One line a figure, one column a model; what was not measured is empty."""
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table([SUMMARY], COLUMNS, SETTINGS))
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capture.get().splitlines() if "│" in line]
    rows = {row[0]: row[1] for row in cells}
    assert rows["DDP"] == "6.00"
    assert rows["over gloo"] == ""
    assert rows["autopar / DDP's best"] == "0.90 (0.85 to 0.95)"
    assert rows["autopar, data_parallel / plain"] == "0.50 (0.50 to 0.50)"
    assert rows["autopar, ms exposed"] == "1.50"
    assert rows["plain, peak MiB"] == "100"


def test_footnote_says_what_was_skipped() -> None:
    """With the model, the column and the reason."""
    text = footnote([SUMMARY, SUMMARY], COLUMNS, SETTINGS)
    assert "deep, autopar-gloo: not measured: RuntimeError: no gloo" in text
    assert "Geometric mean of autopar / DDP's best: 0.900" in text


def test_json_round_trips(tmp_path: Path) -> None:
    """The document can be written, replaced and read; nothing else stays in the folder."""
    content = _document()
    write_json(tmp_path / "a.json", {})
    write_json(tmp_path / "a.json", content)
    read = json.loads((tmp_path / "a.json").read_text())
    assert read == json.loads(json.dumps(content))
    assert (read["version"], read["settings"]["rounds"]) == (3, 2)
    assert read["machine"].keys() >= {"processor", "cores", "load", "python", "torch", "autopar"}
    assert read["models"][0]["to_best"]["autopar"]["median"] == 0.9
    assert read["models"][0]["steps"] == MEASURED.steps
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_chart_has_a_bar_for_each_column_that_was_measured() -> None:
    """As long as its ratio to the plain module; those alone and those skipped are not in it."""
    root = ElementTree.fromstring(chart_svg(_document(), COLUMNS))
    name = "{http://www.w3.org/2000/svg}"
    widths = [float(rect.get("width", "0")) for rect in root.iter(f"{name}rect")][1:]
    assert len(widths) == 4
    plain, ddp, static, ours = widths
    assert [ddp / plain, static / plain, ours / plain] == pytest.approx([4.0, 2.25, 2.0], rel=1e-3)
    texts = [text.text or "" for text in root.iter(f"{name}text")]
    assert "deep: 64 layers" in texts
    assert "2.00 · 3.5 ms" in texts
