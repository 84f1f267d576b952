"""Reads what an earlier ``autopar transform`` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autopar.errors import UsageError

__all__ = ["read_run"]


def read_run(path: Path) -> dict[str, Any]:
    """The graph document of a folder, or of a graph.json.

    Raises:
        UsageError: it cannot be read.
        ModelError: it is no graph document, or one of another version.
    """
    from autopar.view.graph_json import read_document

    file = path / "graph.json" if path.is_dir() else path
    try:
        return read_document(file.read_text(encoding="utf-8"), name=str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{file} cannot be read: {getattr(error, 'strerror', None) or error}.",
            mend="Give a folder that `autopar transform` wrote, its graph.json, or a model's file.",
        ) from None
