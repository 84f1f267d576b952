"""Options for watching and steering the passes: which run, and what is printed and kept of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar

import rich_click as click

from autopar.cli.completion import files, pass_names
from autopar.cli.terminal import messages

__all__ = ["pass_options", "plugin_option", "print_counters", "print_timing"]

F = TypeVar("F", bound=Callable[..., Any])

_STEERING = ("print_after", "dump_after", "stop_after", "disabled")


def plugin_option(command: F) -> F:
    """``--plugin``: a file that makes passes known."""
    return click.option(
        "--plugin",
        "plugins",
        multiple=True,
        metavar="FILE",
        shell_complete=files,
        expose_value=False,
        callback=_add_plugins,
        help="Python file that makes passes known with autopar.register_pass.",
    )(command)


def pass_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """All options about passes; those that go into a ``Request`` come to the command together, as ``steering``."""

    @wraps(command)
    def together(**values: Any) -> Any:
        return command(steering={name: values.pop(name) for name in _STEERING}, **values)

    decorated = together
    for decorate in reversed(
        (
            plugin_option,
            click.option(
                "--disable-pass",
                "disabled",
                multiple=True,
                metavar="PASS",
                shell_complete=pass_names,
                help="Leave this pass out.",
            ),
            click.option(
                "--print-after",
                metavar="PASS",
                shell_complete=pass_names,
                help="Print the program after this pass, or after all.",
            ),
            click.option(
                "--dump-after",
                metavar="PASS",
                shell_complete=pass_names,
                help="Write the program after this pass, after all, or after all that changed it, as files that run.",
            ),
            click.option(
                "--stop-after",
                metavar="PASS",
                shell_complete=pass_names,
                help="Stop after this pass, and print the program.",
            ),
            click.option("--timing", is_flag=True, help="Print how long each pass took."),
            click.option("--counters", is_flag=True, help="Print what each pass counted."),
        )
    ):
        decorated = decorate(decorated)
    return decorated


def _add_plugins(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
    if value:
        from autopar.passes.plugin_files import add_plugins

        add_plugins(value)


def print_timing(records: Sequence[Mapping[str, Any]]) -> None:
    """A line for each pass: milliseconds, and the size of the graph."""
    for record in records:
        change = f"{record['nodes_before']} -> {record['nodes_after']} nodes" if record["changed"] else "no change"
        messages().print(f"{record['seconds'] * 1000:8.1f} ms  {record['name']}  {change}", soft_wrap=True)


def print_counters(records: Sequence[Mapping[str, Any]]) -> None:
    """A line for each number that a pass counted."""
    for record in records:
        for what, count in record["counters"].items():
            messages().print(f"{count:12,}  {record['name']}  {what}", soft_wrap=True)
