"""``autopar bench``: two ranks measure a user's model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_measures_a_users_model(command: Command, model_file: Path, tmp_path: Path) -> None:
    """Times of all columns asked for, peak memory, and a chart; no file of its own stays behind."""
    chart = tmp_path / "chart.svg"
    ended = command(
        "bench", str(model_file), "--input", "4x5x10", "--rounds", "1", "--columns", "autopar", "--json",
        "--chart", str(chart),
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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chart.svg", "model.py"]


def test_unknown_column(command: Command, model_file: Path) -> None:
    """Nothing is started."""
    ended = command("bench", str(model_file), "--input", "4x5x10", "--columns", "pdd")
    assert ended.code == 2
    assert "no column 'pdd'" in ended.err
