"""``autopar view``: a program as a table, a picture or a file for another tool, from a model or from graph.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from autopar.cli.completion import files
from autopar.cli.formats import FORMATS, rendered
from autopar.cli.options import (
    Choice,
    compile_options,
    debug_option,
    rate_option,
    with_rates,
    world_size_option,
)
from autopar.cli.pass_options import plugin_option
from autopar.cli.runs import read_run, refuse_compiling
from autopar.cli.terminal import results
from autopar.errors import UsageError

__all__ = ["view"]


@click.command()
@click.argument("file", metavar="FILE[:NAME]|FOLDER|GRAPH.JSON", shell_complete=files)
@click.option(
    "--format",
    "form",
    type=Choice(["table", *FORMATS, "png"]),
    metavar="NAME",
    default="table",
    show_default=True,
    help="How to show it. table: in the terminal; "
    + "; ".join(f"{name}: {what}" for name, what in FORMATS.items())
    + "; png: svg as an image.",
)
@click.option("--before", is_flag=True, help="The graph as it was captured (table, dot and graph-svg).")
@click.option("--trace", metavar="DIR", help="Show what `run` or `bench` with --trace DIR measured (html, trace).")
@compile_options
@plugin_option
@world_size_option
@rate_option
@debug_option
def view(
    file: str,
    form: str,
    before: bool,
    trace: str | None,
    how: dict[str, Any],
    world_size: int | None,
    rates: dict[str, str],
) -> None:
    """Show a program: of a model file, or of what transform wrote.

    A model file's definitions are executed to build the model; its training code is not.
    """
    path = Path(file)
    if path.is_dir() or path.suffix == ".json":
        refuse_compiling(path)
        document = read_run(path)
    else:
        from autopar.cli.compiling import Request, compile_script

        compiled = compile_script(Request(spec=file, **how, world_size=world_size, rates=rates))
        from autopar.view.graph_json import graph_document

        document = graph_document(compiled.compilation, strategy=compiled.strategy.name, world_size=world_size)
    with_rates(document, rates)
    _show(document, form, "before" if before else "after", trace)


def _show(document: dict[str, Any], form: str, graph: str, trace: str | None) -> None:
    measured = None
    if trace is not None:
        from autopar.view.measured import read_measured

        if form not in ("html", "trace"):
            raise UsageError(f"--trace does not go with --format {form}.", mend="Use --format html or trace.")
        measured = read_measured(Path(trace))
    if form == "table":
        from autopar.view.table import print_table

        print_table(document, results(), graph=graph)
    elif form == "png":
        from autopar.view.png import plan_png

        click.echo(plan_png(document), nl=False)
    else:
        click.echo(rendered(document, form, graph, measured), nl=False)
