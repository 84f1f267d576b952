"""Commands whose modules are imported when they are called: help lists them without that."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import rich_click as click

__all__ = ["LazyCommand"]


class LazyCommand(click.RichCommand):
    """Stands for a command of another module.

    Args:
        name: of the command, and of the function that is it.
        module: where that function is.
        summary: the first line of its help, word for word.
    """

    def __init__(self, name: str, module: str, summary: str) -> None:
        super().__init__(name=name, help=summary)
        self._module = module

    def load(self) -> click.Command:
        """The command itself."""
        command: click.Command = getattr(import_module(self._module), str(self.name))
        return command

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The command's own context, so that click goes on with the command itself."""
        return self.load().make_context(info_name, args, parent, **extra)
