"""Commands whose modules are imported when they are called: help lists them without that."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import rich_click as click

__all__ = ["LazyCommand"]


class LazyCommand(click.RichCommand):
    """Stands for a command of another module, and fills its options in from variables and from a file.

    Args:
        name: of the command, and of the function that is it.
        module: where that function is.
        summary: the first line of its help, word for word.
    """

    def __init__(self, name: str, module: str, summary: str) -> None:
        super().__init__(name=name, help=summary)
        self._module = module
        self._loaded: click.Command | None = None

    def load(self) -> click.Command:
        """The command itself."""
        if self._loaded is None:
            from autopar.cli.configuration import SHOW_CONFIG, named

            command: click.Command = getattr(import_module(self._module), str(self.name))
            text = "Print each option's value and where it comes from."
            command.params.append(click.Option([SHOW_CONFIG], is_flag=True, expose_value=False, help=text))
            self._loaded = named(command)
        return self._loaded

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The command's own context, so that click goes on with the command itself."""
        from autopar.cli.configuration import SHOW_CONFIG, file_values, origin

        command = self.load()
        group = None if parent is None else parent.command
        commands = group.commands if isinstance(group, click.Group) else {}
        loaded = {name: one.load() for name, one in commands.items() if isinstance(one, LazyCommand)}
        # A script's own arguments follow those of `run`: only the first word is surely autopar's.
        words = args if command.allow_interspersed_args else args[:1]
        if extra.get("resilient_parsing") or {"-h", "--help"} & set(words):
            return command.make_context(info_name, args, parent, **extra)  # help needs no file, and no right one
        values, file = file_values(command, loaded)
        extra.setdefault("default_map", values)
        if SHOW_CONFIG in words:
            from autopar.cli.show_config import show_config

            return show_config(command, info_name, args, parent, file=file, extra=extra)
        try:
            return command.make_context(info_name, args, parent, **extra)
        except click.BadParameter as error:
            if error.ctx is not None and isinstance(error.param, click.Option):
                place = origin(error.ctx, error.param, file)
                if place != "flag":
                    text = f"{error.message} It comes from {place}."
                    raise click.BadParameter(text, ctx=error.ctx, param=error.param) from None
            raise
