"""Where words go: results to standard output, everything else to standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["messages", "note", "results", "say_error"]


def results() -> Console:
    """The console for what was asked for; NO_COLOR and COLUMNS are heeded."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def messages() -> Console:
    """The console for everything else."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def note(text: str) -> None:
    """A line about what is going on, for somebody who waits at a terminal; nothing in a pipe."""
    if sys.stderr.isatty():
        messages().print(text, style="dim", soft_wrap=True)


def say_error(text: str) -> None:
    """One line that says what went wrong."""
    from rich.text import Text

    line = " ".join(text.split())
    messages().print(Text.assemble(("autopar: error: ", "bold red"), line), soft_wrap=True)
