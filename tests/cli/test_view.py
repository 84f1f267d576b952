"""``autopar view``: of a model file, of a folder, and of a graph.json; in every format."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from autopar.view.graph_json import read_document, write_document
from tests.cli.conftest import Command
from tests.view.documents import chain


@pytest.fixture
def graph_file(tmp_path: Path) -> Path:
    """A folder as transform writes one, made by hand."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "graph.json").write_text(write_document(chain(["a", "b"])))
    return folder / "graph.json"


def test_model_file_as_a_table(command: Command, model_file: Path) -> None:
    """Modules, operations and buckets of the transformed program; nothing is written."""
    ended = command("view", str(model_file), "--input", "4x2x10")
    assert ended.code == 0, ended.err
    assert "LSTM (opaque)" in ended.out
    assert "ops.sync_gradients" in ended.out
    assert [path.name for path in Path().iterdir() if path.name != "__pycache__"] == ["model.py"]


def test_model_file_before(command: Command, model_file: Path) -> None:
    """--before shows what was captured."""
    ended = command("view", f"{model_file}:Net", "--input", "4x2x10", "--before")
    assert "ops.sync_gradients" not in ended.out
    assert "Linear" in ended.out


def test_folder_and_file_show_the_same(command: Command, graph_file: Path) -> None:
    """A folder stands for its graph.json."""
    assert command("view", str(graph_file)).out == command("view", str(graph_file.parent)).out != ""


def test_formats(command: Command, graph_file: Path) -> None:
    """Each format is all of standard output."""
    assert command("view", str(graph_file), "--format", "dot").out.startswith("digraph ")
    for form in ("svg", "graph-svg"):
        ElementTree.fromstring(command("view", str(graph_file), "--format", form).out)
    assert command("view", str(graph_file), "--format", "html").out.startswith("<!doctype html>")
    assert json.loads(command("view", str(graph_file), "--format", "trace").out)["traceEvents"]
    assert json.loads(command("view", str(graph_file), "--format", "model-explorer").out)["graphs"]
    document = read_document(command("view", str(graph_file), "--format", "json").out)
    assert document == json.loads(graph_file.read_text())


def test_rates_can_be_given_later(command: Command, graph_file: Path) -> None:
    """A picture for another network, from the same graph.json."""
    ended = command("view", str(graph_file), "--format", "svg", "--rate", "link=1e6", "--rate", "message=2")
    assert "network 976.6 KiB/s (given)" in ended.out
    assert "4.00 s exposed after it" in ended.out


@pytest.mark.parametrize(
    ("arguments", "code", "fact"),
    [
        (["nowhere.py"], 2, "nowhere.py does not exist"),
        (["nowhere.json"], 2, "nowhere.json cannot be read"),
        (["."], 2, "graph.json cannot be read"),
        (["future.json"], 3, "version 3"),
        (["plan.json"], 3, "no graph of autopar's"),
        (["out", "--strategy", "ddp"], 2, "finished graph"),
        (["out", "--format", "hologram"], 2, "hologram"),
        (["out", "--rate", "link"], 2, "no pair"),
        (["out", "--trace", "out", "--format", "dot"], 2, "--trace does not go with"),
        (["out", "--trace", "out", "--format", "trace"], 2, "no measured step"),
        (["out", "--rate", "speed=1"], 2, "no rate 'speed'"),
        (["out", "--rate", "link=-1"], 2, "no positive number"),
    ],
)
def test_bad_input(
    command: Command, graph_file: Path, tmp_path: Path, arguments: list[str], code: int, fact: str
) -> None:
    """One line with the fact and the exit code."""
    (tmp_path / "plan.json").write_text('{"version": 1, "strategy": "ddp"}')
    (tmp_path / "future.json").write_text(graph_file.read_text().replace('"version": 2', '"version": 3', 1))
    ended = command("view", *arguments)
    assert (ended.code, ended.out) == (code, "")
    assert fact in ended.err
    assert len(ended.err.splitlines()) == 1
