"""A long job says what it is at; a short one says nothing."""

# ruff: noqa: D102 - a forward is what its class says

from __future__ import annotations

import io
import sys
import threading
from typing import Any

import pytest
import torch
from torch import nn

import autopar
from autopar import progress
from autopar.cli.terminal import waiting
from autopar.progress import entering, telling


def test_phases_are_told_once_it_takes_long() -> None:
    """The one that it is in then, and each one after it."""
    told: list[str] = []
    late = threading.Event()

    def tell(phase: str, seconds: float) -> None:
        told.append(phase)
        assert seconds >= 0
        late.set()

    with telling(tell, after=0.001):
        entering("first")
        assert late.wait(10)
        entering("second")
    entering("nobody's")
    assert told in (["first", "second"], ["", "first", "second"])  # it may be late before it has begun


def test_short_jobs_say_nothing() -> None:
    """And leave no timer behind."""
    told: list[str] = []
    with telling(lambda phase, seconds: told.append(phase)):
        entering("first")
    assert told == []
    assert not any(
        isinstance(thread, threading.Timer) and not thread.finished.is_set() for thread in threading.enumerate()
    )


class Slow(nn.Module):
    """Waits in its first forward until the line has been written."""

    def __init__(self, written: threading.Event) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)
        self.wait = written.wait

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.wait(10)
        return self.fc(x)


@pytest.mark.parametrize("quiet", ["0", "1"])
def test_slow_capture_is_one_line(quiet: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the user's process, on standard error, unless it is to be quiet."""
    written = threading.Event()

    class Errors(io.StringIO):
        def write(self, text: str) -> int:
            written.set()
            return super().write(text)

    errors = Errors()
    monkeypatch.setattr(sys, "stderr", errors)
    monkeypatch.setenv("AUTOPAR_QUIET", quiet)
    monkeypatch.setattr(progress, "SECONDS", 0.01)
    if quiet == "1":
        written.set()
    autopar.parallelize(Slow(written), "ddp")(torch.randn(3, 4))
    lines = [line for line in errors.getvalue().splitlines() if "takes a while" in line]
    assert len(lines) == (1 if quiet == "0" else 0)
    assert all(line.startswith("autopar: capturing Slow takes a while: 0 s so far, ") for line in lines)


def test_a_terminal_is_shown_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """With job, phase and seconds."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with waiting("Capturing Net") as tell:
        assert tell is not None
        tell("recording one step", 3.2)
        tell("comparing with eager", 4.0)
    shown: Any = sys.stderr
    assert "Capturing Net: " in shown.getvalue()


def test_a_pipe_is_shown_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits there."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with waiting("Capturing Net") as tell:
        assert tell is None
