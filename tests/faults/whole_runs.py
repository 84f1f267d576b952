"""Faults that a whole run outlives: kills within a save, and kills under ``autopar run --max-restarts``."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from tests.checkpoint.killing import killed_everywhere
from tests.ranks import run_ranks
from tests.restarts import end, killing, start, tensors

__all__ = ["killed_saves", "restarted_run"]

# In the first start rank 1 dies in the 2nd epoch (of 22 steps), then rank 0 in the 3rd, then rank 1 again.
_KILLS = {0: (1, 30), 1: (0, 35), 2: (1, 5)}


def killed_saves() -> tuple[str, str, float]:
    """Kills a process before every file operation of a save: what was done, what was found, how long it took."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        (found,) = run_ranks(killed_everywhere, 1, folder, timeout=300.0)
    before = [step for step, _ in found].count(1)
    return (
        f"killed within a save, at each of {len(found) - 1} moments",
        f"a whole checkpoint every time: {before} times the one before, {len(found) - 1 - before} times the new one",
        time.monotonic() - started,
    )


def restarted_run() -> tuple[str, str, float]:
    """Kills ranks of examples/digits.py three times: what was done, how the end compares, how long it took.

    Raises:
        AssertionError: a run did not come to its end.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = ("--nproc", "2", "--max-restarts", str(len(_KILLS)))
        options = ("--epochs", "4", "--checkpoints")
        whole, _ = end(start(*command, killing("digits.py", {}, folder), *options, str(folder / "whole")))
        started = time.monotonic()
        broken, err = end(start(*command, killing("digits.py", _KILLS, folder), *options, str(folder / "broken")))
        seconds = time.monotonic() - started
        one, other = tensors(folder / "whole"), tensors(folder / "broken")
    differing = [name for name in one if not torch.equal(one[name], other[name])]
    same = one.keys() == other.keys() and not differing and whole == broken
    kills = err.count("exitcode: -9")
    return (
        f"killed {len(_KILLS)} times under `autopar run --max-restarts {len(_KILLS)}`",
        f"{kills} restarts; {len(one)} tensors of model and optimizer "
        + ("as in an undisturbed run, bit for bit" if same and kills == len(_KILLS) else "DIFFER"),
        seconds,
    )
