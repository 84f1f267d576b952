"""Files that make passes known: loaded once, in every process that inherits the variable."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autopar.errors import UsageError
from autopar.passes.plugin_files import PLUGINS, add_plugins
from autopar.passes.registry import passes

PASS = """
import autopar

@autopar.register_pass
def do_nothing(gm):
    pass
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file with a pass; forgotten afterwards."""
    monkeypatch.setenv(PLUGINS, "")
    path = tmp_path / "extra.py"
    path.write_text(PASS)
    yield path
    passes.remove("do-nothing")
    sys.modules.pop("autopar_plugin_extra", None)


def test_variable_makes_passes_known(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word to the registry; a second look-up does not run the file again."""
    monkeypatch.setenv(PLUGINS, str(plugin))
    assert "do-nothing" in passes.names()
    assert passes.get("do-nothing") is passes.get("do-nothing")


def test_added_files_are_inherited(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their full path, each once."""
    import os

    monkeypatch.chdir(plugin.parent)
    add_plugins(["extra.py"])
    add_plugins([plugin])
    assert os.environ[PLUGINS] == str(plugin)
    assert "do-nothing" in passes.names()


@pytest.mark.parametrize(("text", "fact"), [("1 / 0", "fails when it is imported: Zero"), (None, "no Python")])
def test_bad_plugins(plugin: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, fact: str) -> None:
    """One sentence with the file."""
    plugin.write_text(text) if text else plugin.unlink()
    monkeypatch.setenv(PLUGINS, str(plugin))
    with pytest.raises(UsageError, match=rf"extra\.py .*{fact}"):
        passes.names()
