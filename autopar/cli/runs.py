"""Reads what an earlier ``autopar transform`` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autopar.cli.configuration import flags_given
from autopar.errors import UsageError

__all__ = ["read_run", "read_run_remarks", "refuse_compiling"]

_COMPILES = ("strategy", "model", "inputs", "capture", "pipeline", "bucket_cap_mb", "weight", "pairs", "world_size")


def read_run(path: Path) -> dict[str, Any]:
    """The graph document of a folder, or of a graph.json.

    Raises:
        UsageError: it cannot be read.
        ModelError: it is no graph document, or one of another version.
    """
    from autopar.view.graph_json import read_document

    file = path / "graph.json" if path.is_dir() else path
    return read_document(_text(file), name=str(file))


def refuse_compiling(path: Path) -> None:
    """Refuses flags that would compile another program than the one that a run holds; variables and files may say so.

    Raises:
        UsageError: one was given.
    """
    given = flags_given(_COMPILES)
    if given:
        raise UsageError(
            f"{path} holds a finished graph, and {', '.join(given)} would make another.",
            mend="Give the model's file, or leave these options out.",
        )


def read_run_remarks(folder: Path) -> list[dict[str, Any]]:
    """The records of a folder's remarks.jsonl.

    Raises:
        UsageError: it cannot be read.
        ModelError: it holds something else, or records of another version.
    """
    from autopar.view.remarks import read_remarks

    file = folder / "remarks.jsonl"
    return read_remarks(_text(file), name=str(file))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{file} cannot be read: {getattr(error, 'strerror', None) or error}.",
            mend="Give a folder that `autopar transform` wrote, its graph.json, or a model's file.",
        ) from None
