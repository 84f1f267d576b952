"""A process that dies while it saves, at every moment of it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

import autopar
from tests.checkpoint.runs import build

__all__ = ["killed_everywhere"]

_TOUCHING = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "shutil.rmtree")


def _save(path: Path, step: int) -> None:
    torch.manual_seed(step)
    model, optimizer, _ = build()
    autopar.save(model, optimizer, path, step=step, keep=1)


def _die_at(moment: int, path: Path) -> int:
    """In a copy of this process: saves step 2, killed before the file operation of that number; its exit status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in _TOUCHING and str(path) in str(arguments[0]):
            count += 1
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    _save(path, 2)
    os._exit(0)


def killed_everywhere(path: str) -> list[tuple[int, int]]:
    """The step that is loaded after a kill at each moment of a save, and the one after the next save."""
    found = []
    for moment in range(1, 1000):
        run = Path(path, str(moment))
        _save(run, 1)
        ended = _die_at(moment, run)
        model, optimizer, _ = build()
        loaded = autopar.load(model, optimizer, run)
        assert loaded is not None
        torch.manual_seed(loaded.step)
        assert all(torch.equal(p, q) for p, q in zip(model.parameters(), build()[0].parameters(), strict=True))
        _save(run, 3)
        after = autopar.load(model, optimizer, run)
        assert after is not None
        found.append((loaded.step, after.step))
        assert sorted(file.name for file in run.iterdir()) == ["latest", "step-00000003"]
        if ended == 0:
            return found
        assert os.WTERMSIG(ended) == signal.SIGKILL
    raise AssertionError("a save without an end")
