"""``autopar.json`` and ``ranks.json``: all of a checkpoint but its tensors, as versioned JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from autopar.checkpoint.folder import ORIGIN
from autopar.errors import CheckpointError

__all__ = ["RANKS", "read_json", "read_origin", "write_json", "write_origin"]

RANKS = "ranks.json"
_FORMAT = 1
_NEEDED = frozenset({"step", "world_size", "model", "optimizer", "extras", "loader", "plan", "tensors", "files"})
_MEND = "Load an older checkpoint by its own folder, such as path/step-00000010."


def write_json(file: Path, content: Any) -> None:
    """Writes a JSON file, which is on the disk afterwards."""
    with file.open("x") as stream:
        json.dump(content, stream, indent=1)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())


def write_origin(folder: Path, content: dict[str, Any]) -> None:
    """Writes ``autopar.json``, with the sizes of all files that are there; to be called last."""
    assert content.keys() == _NEEDED - {"files"}
    files = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    write_json(folder / ORIGIN, {"format": _FORMAT, **content, "files": files})


def read_json(file: Path) -> Any:
    """What a JSON file of a checkpoint holds.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {str(error).rstrip('.')}.", mend=_MEND) from None


def read_origin(folder: Path) -> dict[str, Any]:
    """What ``write_origin`` wrote, after a look at all files.

    Raises:
        CheckpointError: a file is missing or truncated, or another version of autopar wrote them.
    """
    file = folder / ORIGIN
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise CheckpointError(f"{file} is no checkpoint of autopar's.", mend=_MEND)
    if content["format"] > _FORMAT:
        raise CheckpointError(
            f"{folder} has format {content['format']}; this autopar reads format {_FORMAT}.",
            why="A newer autopar wrote it.",
            mend="Update autopar, or read the tensors with torch.distributed.checkpoint alone.",
        )
    if not content.keys() >= _NEEDED:
        missing = ", ".join(sorted(_NEEDED - content.keys()))
        raise CheckpointError(f"{file} is damaged: it has no {missing}.", mend=_MEND)
    for name, size in content["files"].items():
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} is incomplete: {name} is missing.", mend=_MEND)
        found = (folder / name).stat().st_size
        if found != size:
            raise CheckpointError(
                f"{folder} is damaged: {name} has {found:,} bytes and had {size:,} when it was written.", mend=_MEND
            )
    return content
