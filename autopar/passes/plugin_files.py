"""Python files that make passes known: for a pass of one's own that no installed package advertises."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from autopar.errors import UsageError

__all__ = ["PLUGINS", "add_plugins", "load_plugins", "plugin_files"]

PLUGINS = "AUTOPAR_PLUGINS"


def plugin_files() -> list[Path]:
    """The files that the variable ``AUTOPAR_PLUGINS`` names, which processes started from here inherit."""
    return [Path(text) for text in os.environ.get(PLUGINS, "").split(os.pathsep) if text]


def add_plugins(files: Iterable[str | Path]) -> None:
    """Puts files into ``AUTOPAR_PLUGINS``, and loads them."""
    listed = dict.fromkeys([*plugin_files(), *(Path(file).absolute() for file in files)])
    for file in listed:
        _load(file.resolve())
    if listed:
        os.environ[PLUGINS] = os.pathsep.join(map(str, listed))


def load_plugins() -> None:
    """Imports each of the files once; their ``autopar.register_pass`` calls then count.

    Raises:
        UsageError: one is no Python file, or fails when it is imported.
    """
    for file in plugin_files():
        _load(file.resolve())


def _load(path: Path) -> None:
    name = f"autopar_plugin_{path.stem}"
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__file__ == str(path):
        return
    spec = importlib.util.spec_from_file_location(name, path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise UsageError(f"The plug-in {path} is no Python file.", mend="Give a file that calls autopar.register_pass.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        what = f"{type(error).__name__}: {error}".rstrip(".")
        raise UsageError(
            f"The plug-in {path} fails when it is imported: {what}.",
            mend="Run it with Python to see where.",
        ) from error
