"""``--show-config``: what each option is, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click
from click.exceptions import Exit

from autopar.cli.configuration import SHOW_CONFIG, origin, settable

__all__ = ["show_config"]


def show_config(
    command: click.Command,
    info_name: str | None,
    args: list[str],
    parent: click.Context | None,
    *,
    file: Path | None,
    extra: dict[str, Any],
) -> click.Context:
    """Prints a line for each option, and ends; what the command works on need not be given.

    Args:
        command: whose options.
        info_name, args, parent, extra: as of ``click.Command.make_context``.
        file: where the values of ``extra["default_map"]`` come from.

    Raises:
        Exit: always.
    """
    before = [(one, one.required, one.expose_value) for one in command.params]
    rest = [word for word in args if word != SHOW_CONFIG]
    try:
        for one in command.params:
            one.required, one.expose_value = False, True
        ctx = command.make_context(info_name, rest, parent, **extra)
    finally:
        for one, required, exposed in before:
            one.required, one.expose_value = required, exposed
    rows = [(name, _text(ctx.params[str(one.name)]), origin(ctx, one, file)) for name, one in settable(command)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, place in rows:
        click.echo(f"{name:{widths[0]}}  {value:{widths[1]}}  {place}")
    raise Exit


def _text(value: Any) -> str:
    if isinstance(value, dict):
        value = [f"{key}={one}" for key, one in value.items()]
    if isinstance(value, (tuple, list)):
        return " ".join(map(str, value)) or "-"
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
