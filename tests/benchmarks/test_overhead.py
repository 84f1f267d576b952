"""The command `python -m benchmarks.overhead`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from torch.multiprocessing.spawn import ProcessRaisedException

from benchmarks import overhead
from benchmarks.overhead import main

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_ranks_measure_a_workload(tmp_path: Path) -> None:
    """A short run prints the table and writes all steps as JSON; no file of its own stays behind."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.overhead", "--rounds", "1", "--steps", "2"]
        + ["--workloads", "deep", "--json", str(tmp_path / "overhead.json")],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "autopar / DDP's best" in run.stdout
    assert "deep: round 1 of 1" in run.stderr
    content = json.loads((tmp_path / "overhead.json").read_text())
    (workload,) = content["workloads"]
    assert workload["steps"].keys() == {"plain", "ddp", "ddp-static", "ddp-one-bucket", "autopar"}
    assert all(len(rounds) == 1 and len(rounds[0]) == 2 for rounds in workload["steps"].values())
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workloads", "depp"], "There is no workload 'depp'"),
        (["--rounds", "0"], "0 is not in the range x>=1"),
        (["--optimizer", "adam"], "'adam' is not one of"),
        (["--json", "/no/such/folder/x.json"], "There is no folder /no/such/folder"),
    ],
)
def test_bad_options_end_with_2(options: list[str], message: str) -> None:
    """A wrong option is refused with a sentence before anything is started."""
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


def test_failed_rank_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a rank raised is shown as an error, with exit code 1."""

    def fail(*args: object) -> None:
        raise ProcessRaisedException("\nboom on rank 1", error_index=1, error_pid=0)

    monkeypatch.setattr(overhead, "run_ranks", fail)
    result = CliRunner().invoke(main, ["--workloads", "deep"])
    assert result.exit_code == 1
    assert "boom on rank 1" in result.output
