"""``--trace`` of ``autopar run`` and ``bench``: what a traced run leaves behind besides each rank's measurements."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from autopar.view.graph_json import graph_document, read_document, write_document
from autopar.view.measured import read_measured
from autopar.view.trace import trace_json

if TYPE_CHECKING:
    from autopar.compilation import Compilation

__all__ = ["clear", "merge", "write_graph"]


def clear(folder: Path) -> None:
    """Removes what an earlier run measured, which may have had more ranks."""
    for file in (*folder.glob("rank-*.json"), *folder.glob("model-*/rank-*.json"), folder / "graph.json"):
        file.unlink(missing_ok=True)


def write_graph(compilation: Compilation, world_size: int, folder: Path) -> None:
    """Writes the graphs that the ranks run, for the predicted step."""
    document = graph_document(compilation, strategy=compilation.plan.strategy, world_size=world_size)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.json").write_text(write_document(document), encoding="utf-8")


def merge(folder: Path) -> list[Path]:
    """Writes ``trace.json``, measured beside predicted, for each model; the files that it wrote.

    Raises:
        ModelError: a file is damaged.
    """
    written = []
    for place in (folder, *sorted(folder.glob("model-*"))):
        graph = place / "graph.json"
        if graph.exists() and any(place.glob("rank-*.json")):
            document = read_document(graph.read_text(encoding="utf-8"), name=str(graph))
            written.append(place / "trace.json")
            written[-1].write_text(trace_json(document, read_measured(place)), encoding="utf-8")
    return written
