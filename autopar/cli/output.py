"""Writes a command's files all together or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from autopar.errors import UsageError

__all__ = ["check_folder", "write_folder"]


def check_folder(folder: Path) -> None:
    """Refuses a place that cannot be an output folder, before any work is done for it.

    Raises:
        UsageError: it is a file.
    """
    for place in (folder, *folder.absolute().parents):
        if place.exists() and not place.is_dir():
            raise UsageError(
                f"The output folder {folder} cannot be made: {place} is a file.",
                mend="Give another folder with -o.",
            )


def write_folder(folder: Path, files: Mapping[str, str]) -> list[Path]:
    """Writes text files into a folder; on any failure the folder is as it was.

    Everything is written to a folder beside it first. A new folder then comes into being by one
    rename; in one that is there already, each file is replaced by one rename and others are kept.

    Args:
        folder: where the files belong; made when missing.
        files: file name, which may be in one folder more, to content.

    Returns:
        The paths of the files.

    Raises:
        UsageError: the place cannot be written to.
    """
    beside = folder.absolute().parent / f".{folder.absolute().name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        beside.mkdir(parents=True)
        for name, text in files.items():
            (beside / name).parent.mkdir(exist_ok=True)
            (beside / name).write_text(text, encoding="utf-8")
        if folder.exists():
            for name in files:
                (folder / name).parent.mkdir(exist_ok=True)
                os.replace(beside / name, folder / name)
        else:
            os.replace(beside, folder)
    except OSError as error:
        raise UsageError(
            f"The output folder {folder} cannot be written: {error.strerror or error}.",
            mend="Give another folder with -o.",
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return [folder / name for name in files]
