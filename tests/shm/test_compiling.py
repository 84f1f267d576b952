"""The C source is compiled once, kept under what it depends on, and done without where it cannot be."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from autopar.shm import compiling
from autopar.shm.compiling import cache_folder, compiler, kernels

_fresh = compiling._library.__wrapped__  # without what this process remembers


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("AUTOPAR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("AUTOPAR_NO_COMPILER", raising=False)
    return tmp_path / "cache"


def _compile() -> bool:
    found = compiler()
    return found is not None and _fresh(found) is not None


def test_compiled_once(folder: Path) -> None:
    """The second process finds the file of the first."""
    assert _compile()
    (library,) = folder.iterdir()
    before = library.stat().st_mtime_ns
    assert _compile()
    assert [file.stat().st_mtime_ns for file in folder.iterdir()] == [before]


def test_ranks_may_race(folder: Path) -> None:
    """Each writes beside and renames; one file is left."""
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.starmap(_compile, [()] * 3) == [True] * 3
    assert len(list(folder.iterdir())) == 1


def test_folder_that_cannot_be_written(folder: Path) -> None:
    """Then each process compiles for itself."""
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("in the way")
    assert _compile()


def test_compiler_that_fails(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept, and the transport in Python takes over."""
    broken = tmp_path / "broken-cc"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    assert compiler() == str(broken)
    assert not _compile()
    assert list(folder.iterdir()) == []


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """None on the path, or forbidden."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert compiler() is None
    assert kernels() is None
    monkeypatch.undo()
    monkeypatch.setenv("AUTOPAR_NO_COMPILER", "1")
    assert kernels() is None


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable, then the user's cache folder."""
    assert cache_folder() == Path(os.environ["AUTOPAR_CACHE_DIR"])
    monkeypatch.delenv("AUTOPAR_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/autopar")
