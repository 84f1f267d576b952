"""DOT text: valid, clustered by module, and closed against names with quotes in them."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from autopar.view.dot import dot_text
from tests.view.documents import chain


def test_modules_are_nested_clusters() -> None:
    """``blocks.0`` lies inside ``blocks``."""
    text = dot_text(chain(["blocks.0", "blocks.1"]))
    assert text.count("subgraph cluster_") == 3
    assert re.search(r'label="blocks".*label="0".*label="1"', text, re.S)


def test_synchronisation_has_a_colour_for_its_bucket() -> None:
    """Nodes of two buckets differ in colour."""
    text = dot_text(chain(["a", "b"]))
    colours = re.findall(r'label="ops.sync_gradients.*?fillcolor="(#\w+)"', text)
    assert len(colours) == len(set(colours)) == 2


def test_opaque_is_dashed() -> None:
    """An opaque node is drawn dashed and says so."""
    line = next(line for line in dot_text(chain(["a"], opaque=["a"])).splitlines() if "LSTM" in line)
    assert "dashed" in line
    assert "opaque" in line


def test_before_is_another_graph() -> None:
    """The captured graph has no synchronisation."""
    assert "sync_gradients" not in dot_text(chain(["a"]), graph="before")


@pytest.mark.parametrize("name", ['a"; evil -> node; "', "back\\slash", "tab\tname", "<b>bold</b>", "a\\"])
def test_names_cannot_break_out(name: str) -> None:
    """Whatever a name holds, every line's quotes are balanced and no node or edge is added."""
    text = dot_text(chain([name]))
    usual = dot_text(chain(["plain"]))
    assert text.count("->") - text.count("-> node") == usual.count("->")
    for line in text.splitlines():
        assert len(re.findall(r'(?<!\\)(?:\\\\)*"', line)) % 2 == 0


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_reads_it() -> None:
    """Graphviz itself parses the text, odd names included."""
    text = dot_text(chain(["a.b", 'q"uote', "back\\"], opaque=["a.b"]))
    assert subprocess.run(["dot", "-Tcanon"], input=text, text=True, capture_output=True, check=False).returncode == 0
