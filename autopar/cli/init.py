"""``autopar init``: begins a ``[tool.autopar]`` section, with every common option in it as a comment."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import rich_click as click

from autopar.cli.completion import files
from autopar.cli.configuration import settable
from autopar.cli.options import compile_options, debug_option, world_size_option
from autopar.cli.terminal import note
from autopar.errors import UsageError

__all__ = ["init"]

_FILE = Path("pyproject.toml")
_LINE = 100  # characters of a comment


@click.command()
@click.argument("file", metavar="[FILE[:NAME]]", required=False, shell_complete=files)
@click.option("--input", "inputs", multiple=True, metavar="SHAPE[:DTYPE]", help="An argument of the model's.")
@debug_option
def init(file: str | None, inputs: tuple[str, ...]) -> None:
    """Begin a [tool.autopar] section in the pyproject.toml of this folder.

    With FILE, its model is looked for first, so the file's definitions are executed, and the section names it.
    A section that is there is left alone.
    """
    text = _text()
    name = None if file is None else _model(file)
    section = "\n".join(_section(name, inputs)) + "\n"
    _write(f"{text.rstrip()}\n\n{section}" if text.strip() else section)
    click.echo(f"{'Added [tool.autopar] to' if text else 'Wrote'} {_FILE}.")
    click.echo(f"Next: autopar transform {file or 'FILE'}; --show-config says what counts.")


def _text() -> str:
    """What the file holds already.

    Raises:
        UsageError: it has the section, or cannot be read.
    """
    try:
        text = _FILE.read_text(encoding="utf-8") if _FILE.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{_FILE} cannot be read: {error}.", mend="Make it a text file, or move it.") from None
    if "tool.autopar" in text:
        raise UsageError(
            f"{_FILE.absolute()} has a section [tool.autopar].",
            why="What is in it is yours.",
            mend="Edit it; `autopar transform --show-config` says what counts.",
        )
    return text


def _model(file: str) -> str:
    note("Loading PyTorch")
    from autopar.scripts.candidates import find_model

    with contextlib.redirect_stdout(sys.stderr):
        return find_model(file).name


def _section(model: str | None, inputs: tuple[str, ...]) -> Iterator[str]:
    yield "[tool.autopar]"
    chosen = {"model": _quoted(model)} if model else {}
    if inputs:
        chosen["input"] = f"[{', '.join(map(_quoted, inputs))}]"
    for name, option in settable(_common):
        for line in _wrapped(option.help or ""):
            yield f"# {line}"
        yield f"{name} = {chosen[name]}" if name in chosen else f"# {name} = {_example(option)}"


@click.command()
@compile_options
@world_size_option
def _common() -> None:
    """The options that several commands share; never called."""


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, _LINE)


def _example(option: click.Option) -> str:
    value = option.metavar or ""
    if option.type in (click.INT, click.FLOAT):
        return {"N": "4"}.get(value, "25.0")
    return (
        f"[{_quoted(value)}]"
        if option.multiple
        else _quoted(option.default if isinstance(option.default, str) else value)
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _write(text: str) -> None:
    beside = _FILE.with_name(f".{_FILE.name}.partial")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, _FILE)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise UsageError(f"{_FILE.absolute()} cannot be written: {error.strerror or error}.") from None
