"""A sample of torch's own DDP tests on the drop-in; ``make parity`` runs all of them, on 2 and 3 ranks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.parity.expected import EXCLUDED, OVER_GLOO, SLOW
from tests.parity.forked import on_ranks
from tests.parity.report import Row, render, surprises

ROOT = Path(__file__).parents[2]
SAMPLE = (
    "test_DistributedDataParallelCPU$",
    "test_accumulate_gradients_no_sync_allreduce_hook",
    "test_ddp_grad_div_uneven_inputs",
    "test_ddp_ignore_params_arg",
    "test_ddp_multiple_nested_unused_params_error",
)


def test_sample_of_the_tests_of_torch() -> None:
    """Wrapping, accumulation, a communication hook, uneven inputs, ignored and unused parameters."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.parity", "--world-size", "2", *SAMPLE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(SAMPLE)} passed, 0 failed" in done.stdout


def rank_1_raises(rank: int) -> None:
    """What a failing test does."""
    if rank == 1:
        raise ValueError("no such thing")


def rank_0_skips(rank: int) -> None:
    """What torch's tests do where a requirement is not met."""
    if rank == 0:
        sys.exit(77)


def rank_0_hangs(rank: int) -> None:
    """What a test does whose message nobody answers."""
    while rank == 0:
        pass


def test_a_failure_on_any_rank_is_a_failure() -> None:
    """With the error of the rank that raised."""
    outcome = on_ranks(rank_1_raises, 2, timeout=20, skips={})
    assert (outcome.verdict, outcome.reason) == ("failed", "ValueError: no such thing")


def test_exit_codes_mean_skips() -> None:
    """Known ones; others mean that the rank died."""
    assert on_ranks(rank_0_skips, 2, timeout=20, skips={77: "no GPU"}).reason == "no GPU"
    assert on_ranks(rank_0_skips, 2, timeout=20, skips={}).reason == "died with exit code 77"


def test_a_rank_that_hangs_is_killed() -> None:
    """After the time limit, and it counts as a failure."""
    outcome = on_ranks(rank_0_hangs, 2, timeout=1, skips={})
    assert outcome.verdict == "failed"
    assert "rank 0 had not ended after 1 s" in outcome.reason


@pytest.mark.parametrize(
    ("verdict", "excluded", "text"),
    [("failed", "", "failed on 2 ranks: bad"), ("passed", "needs a GPU", "passed on 2 ranks, but is excluded")],
)
def test_surprises_are_said(verdict: str, excluded: str, text: str) -> None:
    """A failure that is not excluded, and an exclusion that is not needed."""
    (said,) = surprises([Row("test_it", 2, verdict, "bad", excluded)])
    assert text in said


def test_page_has_every_row() -> None:
    """With the reason where it is excluded."""
    page = render([Row("test_a", 2, "passed", "", ""), Row("test_b", 2, "failed", "bad", "needs a GPU")])
    assert "| `test_a` | passed |  |" in page
    assert "| `test_b` | excluded | needs a GPU |" in page
    assert f"| 2 | 1 | 0 | {1 + len(SLOW)} | 0 |" in page


def test_nothing_is_excluded_without_a_reason() -> None:
    """And nothing twice."""
    assert all(EXCLUDED.values())
    assert not EXCLUDED.keys() & (SLOW.keys() | OVER_GLOO)
