"""Progress of a measurement where standard error is no terminal."""

from __future__ import annotations

import pytest

from autopar.benchmarking.progress import Rounds


def test_ten_lines_at_most(capsys: pytest.CaptureFixture[str]) -> None:
    """The last round is always among them."""
    with Rounds(25) as progress:
        progress.title = "Net"
        for _ in range(25):
            progress.advance()
    lines = capsys.readouterr().err.splitlines()
    assert 5 <= len(lines) <= 10
    assert lines[-1] == "Net: round 25 of 25"


def test_other_ranks_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    """One rank speaks for all."""
    with Rounds(1, silent=True) as progress:
        progress.advance()
    assert capsys.readouterr().err == ""
