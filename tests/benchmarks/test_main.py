"""The command `python -m benchmarks`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from autopar.errors import CheckFailedError
from benchmarks import __main__ as command
from benchmarks import workloads
from benchmarks.workloads import WORKLOADS


def test_measures_what_was_asked_and_writes_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Workloads by name, the columns, and a line on each; what lacks its library is skipped, with the reason."""
    asked: dict[str, Any] = {}

    def measure(sources: dict[str, Any], columns: Any, settings: Any, **options: Any) -> dict[str, Any]:
        asked.update(sources=sources, columns=columns, settings=settings, **options)
        return {"version": 2}

    monkeypatch.setattr(command, "run_bench", measure)
    monkeypatch.setattr(workloads, "missing", lambda library: f"{library} is not installed")
    file = tmp_path / "bench.json"
    options = ["--workloads", "deep,vit", "--columns", "autopar", "--rounds", "3", "--no-memory", "--json", str(file)]
    result = CliRunner().invoke(command.main, options)
    assert result.exit_code == 0, result.output
    assert "vit: skipped: timm is not installed" in result.output
    assert list(asked["sources"]) == ["deep"]
    assert [column.name for column in asked["columns"]] == ["plain", "autopar"]
    assert (asked["settings"].rounds, asked["memory"]) == (3, False)
    assert asked["about"] == {"deep": WORKLOADS["deep"].summary}
    assert json.loads(file.read_text()) == {"version": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workloads", "depp"], "There is no workload 'depp'"),
        (["--columns", "pdd"], "There is no column 'pdd'"),
        (["--rounds", "0"], "0 is not in the range x>=1"),
        (["--optimizer", "adam"], "'adam' is not one of"),
        (["--json", "/no/such/folder/x.json"], "There is no folder /no/such/folder"),
    ],
)
def test_bad_options_end_with_2(options: list[str], message: str) -> None:
    """A wrong option is refused with a sentence before anything is started."""
    result = CliRunner().invoke(command.main, options)
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


def test_failed_rank_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a rank raised is shown as an error, with exit code 1."""

    def fail(*args: object, **options: object) -> None:
        raise CheckFailedError("A rank failed: boom on rank 1.")

    monkeypatch.setattr(command, "run_bench", fail)
    result = CliRunner().invoke(command.main, ["--workloads", "deep"])
    assert result.exit_code == 1
    assert "boom on rank 1" in result.output
