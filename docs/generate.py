"""Writes into the pages of the documentation what the tool prints, and beside them the pictures that it draws.

    python docs/generate.py docs/tutorial.md docs/how-it-works.md

A page says in comments what its blocks are; all paths are in a folder that each page starts with empty:

    <!-- file NAME -->           the block below is a file; it is written as it stands
    <!-- run -->                 the lines with ``$`` are run, and what they print is put under them
    <!-- show NAME PART -->      a function of a Python file, or a key of a JSON file, is put there
    <!-- picture NAME AS -->     a file that was drawn is copied to docs/pictures
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from autopar.cli.main import main as autopar

__all__ = ["generate"]

DOCS = Path(__file__).resolve().parent
_BLOCK = re.compile(r"<!-- (file|run|show)([^\n]*?) -->\n```(\w*)\n(.*?)```", re.DOTALL)
_PICTURE = re.compile(r"<!-- picture (\S+) (\S+) -->")


def launched(words: Sequence[str]) -> str:
    """What ``autopar run`` prints: the one command that needs processes of its own."""
    script = [sys.executable, "-m", *words]
    return subprocess.run(script, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout


def generate(text: str, launch: Callable[[Sequence[str]], str] = launched) -> tuple[str, dict[str, str]]:
    """A page as it should be, and its pictures by file name.

    Args:
        text: the page as it is.
        launch: gives what an ``autopar run`` command prints.
    """
    with tempfile.TemporaryDirectory() as folder, _inside(folder):
        page = _BLOCK.sub(partial(_block, launch), text)
        pictures = {name: Path(source).read_text(encoding="utf-8") for source, name in _PICTURE.findall(page)}
    return page, pictures


def _block(launch: Callable[[Sequence[str]], str], match: re.Match[str]) -> str:
    kind, words, _, body = match.groups()
    head = match.group()[: match.start(4) - match.start()]
    if kind == "file":
        Path(words.strip()).write_text(body, encoding="utf-8")
        return match.group()
    if kind == "run":
        commands = [line[2:] for line in body.splitlines() if line.startswith("$ ")]
        body = "".join(f"$ {command}\n{_printed(command, launch)}" for command in commands)
    else:
        body = _shown(*words.split())
    return f"{head}{body}```"


def _printed(command: str, launch: Callable[[Sequence[str]], str]) -> str:
    """What a command prints, in this process where it can be."""
    words = shlex.split(command)
    if words[:2] == ["autopar", "run"]:
        return launch(words)
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        if words[0] == "autopar":
            autopar(words[1:])
        else:
            runpy.run_path(words[1], run_name="__main__")
    return output.getvalue()


def _shown(name: str, part: str) -> str:
    text = Path(name).read_text(encoding="utf-8")
    if name.endswith(".json"):
        return json.dumps(json.loads(text)[part], indent=2) + "\n"
    (function,) = (one for one in ast.parse(text).body if isinstance(one, ast.FunctionDef) and one.name == part)
    return "\n".join(text.splitlines()[function.lineno - 1 : function.end_lineno]) + "\n"


@contextlib.contextmanager
def _inside(folder: str) -> Iterator[None]:
    place, variables = os.getcwd(), dict(os.environ)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(place)
        os.environ.clear()
        os.environ.update(variables)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        path = Path(argument)
        page, pictures = generate(path.read_text(encoding="utf-8"))
        path.write_text(page, encoding="utf-8")
        for name, picture in pictures.items():
            (DOCS / "pictures" / name).write_text(picture, encoding="utf-8")
        print(f"{path}: {', '.join(pictures) or 'no pictures'}")
