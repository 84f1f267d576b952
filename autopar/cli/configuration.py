"""Options besides those on the command line: variables ``AUTOPAR_*``, and ``[tool.autopar]`` in pyproject.toml."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import rich_click as click
from click import get_current_context
from click.core import ParameterSource

from autopar.errors import OptionError, UnknownNameError, UsageError

__all__ = ["SHOW_CONFIG", "file_values", "flags_given", "named", "origin", "settable"]

SHOW_CONFIG = "--show-config"
_TAKEN = ("trace",)  # AUTOPAR_TRACE is a folder that the runtime writes to, whichever command runs
_NOT_SET = ("help", "show-config", "list")  # what is asked for once


def settable(command: click.Command) -> Iterator[tuple[str, click.Option]]:
    """The options of a command that have a value elsewhere, with the names that they have there."""
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            name = max(parameter.opts, key=len).lstrip("-")
            if name not in _NOT_SET:
                yield name, parameter


def named(command: click.Command) -> click.Command:
    """Gives each option its variables: ``AUTOPAR_<COMMAND>_<OPTION>`` comes before ``AUTOPAR_<OPTION>``."""
    for name, option in settable(command):
        words = name.replace("-", "_").upper()
        own = f"AUTOPAR_{str(command.name).upper()}_{words}"
        option.envvar = [own] if name in _TAKEN else [own, f"AUTOPAR_{words}"]
    return command


def origin(ctx: click.Context, option: click.Option, file: Path | None) -> str:
    """Where an option has its value from, in words."""
    source = ctx.get_parameter_source(str(option.name))
    if source is ParameterSource.ENVIRONMENT:
        import os

        return next(name for name in option.envvar or () if os.environ.get(name))
    if source is ParameterSource.DEFAULT_MAP:
        return str(file)
    return "flag" if source is ParameterSource.COMMANDLINE else "default"


def flags_given(names: Collection[str]) -> list[str]:
    """Those of some parameters of the running command that stand on its command line, as flags."""
    ctx = get_current_context()
    return [
        f"--{flag}"
        for flag, option in settable(ctx.command)
        if option.name in names and ctx.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
    ]


def file_values(command: click.Command, commands: Mapping[str, click.Command]) -> tuple[dict[str, Any], Path | None]:
    """The values of ``[tool.autopar]`` for one command, and the file that has them.

    Keys are the options' long names; a table of a command's name holds values for that command alone.

    Args:
        command: whose values.
        commands: all there are, by name: what none of them knows is a mistake.

    Raises:
        UsageError: the file cannot be read.
        UnknownNameError: no command has an option of a key's name.
        OptionError: a value is of a type that its option cannot have.
    """
    found = _nearest()
    if found is None:
        return {}, None
    file, table = found
    own = dict(settable(command))
    everywhere = {name for one in commands.values() for name, _ in settable(one)}
    values: dict[str, Any] = {}
    general = {key: value for key, value in table.items() if key not in commands}
    special = table.get(str(command.name), {})
    if not isinstance(special, dict):
        raise OptionError(f"{file}: {command.name} under [tool.autopar] is no table.", mend="It is a command's name.")
    for section, known in ((general, everywhere), (special, own.keys())):
        for key, value in section.items():
            name = key.replace("_", "-")
            if name not in known:
                raise UnknownNameError(f"option for [tool.autopar] in {file}", key, known)
            if name in own:
                values[str(own[name].name)] = _fitting(value, own[name], f"{file}: {key}")
    return values, file


def _fitting(value: Any, option: click.Option, place: str) -> Any:
    if isinstance(value, dict) or (isinstance(value, list) and not option.multiple):
        raise OptionError(f"{place} is a {type(value).__name__}.", mend="Give one value, as on the command line.")
    return [value] if option.multiple and not isinstance(value, list) else value


def _nearest() -> tuple[Path, dict[str, Any]] | None:
    """The first pyproject.toml up the folders that has the section; one without it is not even parsed."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        file = folder / "pyproject.toml"
        try:
            text = file.read_text(encoding="utf-8") if file.is_file() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{file} cannot be read: {error}.", mend="Make it a text file, or move it.") from None
        if "tool.autopar" not in text:
            continue
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
        try:
            table = tomllib.loads(text).get("tool", {}).get("autopar")
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{file} is not TOML: {error}.", mend="Correct that line.") from None
        if isinstance(table, dict):
            return file, table
    return None
