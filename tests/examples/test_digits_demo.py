"""The demo: three ways to train one model, compared."""

import subprocess
import sys

import digits_demo
import pytest
import torch
from digits_demo import RUNS, Result
from rich.console import Console


def result(weight: float, accuracy: float = 0.98) -> Result:
    """A result with one parameter."""
    weights = {"w": torch.tensor([1.0, weight], dtype=torch.float64)}
    return Result(weights=weights, accuracy=accuracy, step_ms=[2.0, 4.0, 3.0])


def test_largest_difference() -> None:
    """The largest absolute difference over all parameters is reported."""
    assert digits_demo.largest_difference(result(2.0).weights, result(-1.0).weights) == 3.0


def test_other_parameters_are_refused() -> None:
    """Sets of parameters with other names cannot be compared."""
    with pytest.raises(ValueError, match=r"Different parameters: \['v', 'w'\]"):
        digits_demo.largest_difference({"v": torch.ones(1)}, {"w": torch.ones(1)})


def test_report_has_a_row_for_each_run() -> None:
    """The table names runs, accuracy, the median step with its quartiles, and the difference."""
    results = dict(zip(RUNS, (result(1.0), result(1.0), result(1.5)), strict=True))
    console = Console(width=130, file=None)
    with console.capture() as capture:
        console.print(digits_demo.report(results))
    rows = [line for line in capture.get().splitlines() if "98.00%" in line]
    assert len(rows) == 3
    assert "3.0 (2.0 to 4.0)" in rows[0]
    assert [row.split("│")[-2].strip() for row in rows] == ["reference", "0.0e+00", "5.0e-01"]


def test_good_results_keep_the_promises() -> None:
    """Equal parameters and enough accuracy: nothing to complain about."""
    assert digits_demo.failures(dict(zip(RUNS, [result(1.0)] * 3, strict=True)), 0.97) == []


def test_broken_promises_are_named() -> None:
    """A wrong parameter and a poor accuracy are one sentence each, with the run."""
    results = dict(zip(RUNS, (result(1.0), result(1.001), result(1.0, accuracy=0.9)), strict=True))
    wrong, poor = digits_demo.failures(results, 0.97)
    assert wrong.startswith("ddp, 2 ranks: parameters differ by 1.0e-03")
    assert poor == "data_parallel, 2 replicas: accuracy 90.00% is not over 97%."


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_demo_runs() -> None:
    """One epoch of all three runs ends well: the same parameters to the rounding of float64."""
    demo = subprocess.run(
        [sys.executable, digits_demo.__file__, "--epochs", "1"], capture_output=True, text=True, check=False
    )
    assert demo.returncode == 0, demo.stderr
    assert all(run.name in demo.stdout for run in RUNS)
    assert "step 22/22" in demo.stderr
