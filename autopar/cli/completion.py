"""What a shell completes beyond commands and options: files, and names of strategies, passes and the like."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import rich_click as click
from click.shell_completion import CompletionItem

__all__ = ["capture_names", "column_names", "files", "pass_names", "strategy_names"]

_Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def files(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Leaves it to the shell, which knows its files."""
    return [CompletionItem(incomplete, type="file")]


def _names(listed: Callable[[], Iterable[str]]) -> _Completer:
    """Completes the last of names that commas separate; what lists them is imported only then."""

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        return [CompletionItem(f"{before}{comma}{name}") for name in listed() if name.startswith(last)]

    return complete


def _strategies() -> Iterable[str]:
    from autopar.strategies import strategies

    return strategies.names()


def _passes() -> Iterable[str]:
    from autopar.passes.registry import passes

    return passes.names()


def _captures() -> Iterable[str]:
    from autopar.capture.ladder import CHOICES

    return CHOICES


def _columns() -> Iterable[str]:
    from autopar.benchmarking.columns import COLUMNS

    return [column.name for column in COLUMNS]


strategy_names = _names(_strategies)
pass_names = _names(_passes)
capture_names = _names(_captures)
column_names = _names(_columns)
