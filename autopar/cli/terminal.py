"""Where words go: results to standard output, everything else to standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import rich_click as click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

__all__ = ["messages", "note", "results", "say_error", "waiting"]


def results() -> Console:
    """The console for what was asked for; NO_COLOR and COLUMNS are heeded."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def messages() -> Console:
    """The console for everything else."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def note(text: str) -> None:
    """A line about what is going on, for somebody who waits at a terminal; in a pipe with ``-v``, never with ``-q``."""
    if _wanted("verbose") or (sys.stderr.isatty() and not _wanted("quiet")):
        messages().print(text, style="dim", soft_wrap=True)


@contextmanager
def waiting(job: str) -> Iterator[Callable[[str, float], None] | None]:
    """A line that follows a long job at a terminal and then goes away; None in a pipe and with ``-q``.

    Args:
        job: what is done, such as ``"Capturing Net"``.

    Yields:
        What to call with the phase that the job is in, and the seconds so far.
    """
    if not sys.stderr.isatty() or _wanted("quiet"):
        yield None
        return
    with ExitStack() as stack:
        shown: list[Status] = []

        def tell(phase: str, seconds: float) -> None:
            text = f"{job}: {phase} ({seconds:.0f} s so far)"
            if shown:
                shown[0].update(text)
            else:
                shown.append(stack.enter_context(messages().status(text)))

        yield tell


def _wanted(flag: str) -> bool:
    context = click.get_current_context(silent=True)
    settings = None if context is None else context.find_object(dict)
    return bool(settings and settings.get(flag))


def say_error(text: str, code: str = "") -> None:
    """One line that says what went wrong.

    Args:
        text: what, where, why and the mend.
        code: of the page that ``autopar explain`` prints of it.
    """
    from rich.text import Text

    line = " ".join(text.split())
    label = f"autopar: error[{code}]: " if code else "autopar: error: "
    messages().print(Text.assemble((label, "bold red"), line), soft_wrap=True)
