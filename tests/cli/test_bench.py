"""``autopar bench``: two ranks measure a user's model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_measures_a_users_model(command: Command, model_file: Path, tmp_path: Path) -> None:
    """Times of all columns asked for, peak memory, a chart, and a trace; no file of its own stays behind."""
    chart, trace = tmp_path / "chart.svg", tmp_path / "trace"
    ended = command(
        "bench", str(model_file), "--input", "4x5x10", "--rounds", "1", "--columns", "autopar", "--json",
        "--chart", str(chart), "--trace", str(trace),
    )  # fmt: skip
    assert ended.code == 0, ended.err
    (model,) = ended.json["models"]
    assert model["model"] == "Net"
    assert model["skipped"] == {}
    assert model["steps"].keys() == {"plain", "autopar"}
    assert all(len(rounds) == 1 and len(rounds[0]) == 5 for rounds in model["steps"].values())
    assert model["to_plain"]["autopar"]["median"] > 0
    assert all(mib > 50 for mib in model["peak_mib"].values())
    assert chart.read_text().startswith("<svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chart.svg", "model.py", "trace"]
    events = json.loads((trace / "trace.json").read_text())["traceEvents"]
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {"predicted rank 0", "predicted rank 1", "measured rank 0", "measured rank 1"}


def test_unknown_column(command: Command, model_file: Path) -> None:
    """Nothing is started."""
    ended = command("bench", str(model_file), "--input", "4x5x10", "--columns", "pdd")
    assert ended.code == 2
    assert "no column 'pdd'" in ended.err
