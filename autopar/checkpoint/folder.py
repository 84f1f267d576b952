"""The folder of a run's checkpoints: one folder each, complete from the moment it has its name."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

__all__ = ["LATEST", "ORIGIN", "find", "prune", "publish", "start"]

LATEST = "latest"
ORIGIN = "autopar.json"  # a folder with this file is a checkpoint
_UNFINISHED = ".unfinished-"
_NAME = re.compile(r"step-(\d+)(?:\.(\d+))?")


def start(run: Path, step: int) -> tuple[Path, Path]:
    """An empty folder to write to, and the one that it is to become.

    What saves that were killed have left is removed.
    """
    run.mkdir(parents=True, exist_ok=True)
    for leftover in run.glob(f"{_UNFINISHED}*"):
        if leftover.is_symlink():
            leftover.unlink()
        else:
            shutil.rmtree(leftover)
    name, again = f"step-{step:08d}", 0
    while (run / name).exists():  # the same step once more, after going back to an earlier one
        again += 1
        name = f"step-{step:08d}.{again}"
    unfinished = run / f"{_UNFINISHED}{name}"
    unfinished.mkdir()
    return unfinished, run / name


def publish(unfinished: Path, final: Path) -> None:
    """Gives a complete folder its name, and points ``latest`` to it; each of both is one atomic step."""
    _sync(unfinished)
    unfinished.rename(final)
    link = final.parent / f"{_UNFINISHED}{LATEST}"
    link.symlink_to(final.name, target_is_directory=True)
    link.replace(final.parent / LATEST)
    _sync(final.parent)


def prune(run: Path, keep: int) -> None:
    """Removes all checkpoints but the ``keep`` that were written last."""
    written = sorted(_checkpoints(run), key=lambda folder: (folder / ORIGIN).stat().st_mtime_ns)
    newest = (run / LATEST).resolve()
    for folder in written[:-keep]:
        if folder.resolve() != newest:
            shutil.rmtree(folder.rename(run / f"{_UNFINISHED}{folder.name}"))


def find(path: Path) -> Path | None:
    """The checkpoint at ``path``: the folder itself, or the latest one in it; None where there is none."""
    if (path / ORIGIN).is_file():
        return path
    latest = path / LATEST
    if (latest / ORIGIN).is_file():
        return latest.resolve()
    # killed between the two steps of the first save
    return max(_checkpoints(path), key=lambda folder: folder.name, default=None)


def _checkpoints(run: Path) -> list[Path]:
    if not run.is_dir():
        return []
    return [folder for folder in run.iterdir() if _NAME.fullmatch(folder.name) and (folder / ORIGIN).is_file()]


def _sync(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
