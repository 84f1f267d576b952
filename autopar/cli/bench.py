"""``autopar bench``: how long the steps of a user's model take, plainly, with torch's wrappers and with autopar."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import rich_click as click

from autopar.cli.completion import column_names, files
from autopar.cli.options import debug_option, json_option
from autopar.cli.terminal import note

__all__ = ["bench", "run_bench"]


@click.command()
@click.argument("file", metavar="FILE[:NAME]", shell_complete=files)
@click.option("--model", metavar="NAME", help="The model in the file: a module, a class or a function.")
@click.option("--input", "inputs", multiple=True, metavar="SHAPE[:DTYPE]", help="An argument, such as 32x10.")
@click.option("--loss", metavar="NAME", help="Function in the file that makes a loss of what the model returns.")
@click.option("--nproc", type=click.IntRange(2), default=2, show_default=True, metavar="N", help="Ranks.")
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True, metavar="N", help="Turns a column.")
@click.option(
    "--columns",
    metavar="NAME,...",
    shell_complete=column_names,
    help="What to measure; without it, all but compiled-*.",
)
@click.option("--no-memory", is_flag=True, help="Leave out peak memory, which takes a start of all ranks a column.")
@click.option("-o", "--chart", type=click.Path(path_type=Path, dir_okay=False), metavar="SVG", help="Draw a chart.")
@click.option("--trace", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Write measured steps.")
@json_option
@debug_option
def bench(
    file: str,
    model: str | None,
    inputs: tuple[str, ...],
    loss: str | None,
    nproc: int,
    rounds: int,
    columns: str | None,
    no_memory: bool,
    chart: Path | None,
    trace: Path | None,
    as_json: bool,
) -> None:
    """Measure training steps of a model: plain, with torch's DistributedDataParallel, and with autopar.

    All columns take turns in one run, on ranks of this host with one thread each. The file's definitions are
    executed in every process; its training code is not.
    """
    note("Loading PyTorch")
    from autopar.benchmarking.columns import USUAL, select_columns
    from autopar.benchmarking.measuring import Settings
    from autopar.verification.sources import ScriptSource

    source = ScriptSource(spec=file, model=model, inputs=inputs, loss=loss)
    name = source.load().model.__class__.__name__  # here, so that what is wrong with the file is said once
    chosen = USUAL if columns is None else select_columns(columns)
    settings = Settings(nproc=nproc, rounds=rounds)
    content = run_bench({name: source}, chosen, settings, memory=not no_memory, quiet=as_json, chart=chart)
    if trace is not None:
        from autopar.benchmarking.ranks import trace_ranks
        from autopar.scripts.traced import clear, merge

        clear(trace)
        trace_ranks(source, settings, trace)
        note(f"wrote {', '.join(map(str, merge(trace)))}")
    if as_json:
        click.echo(json.dumps(content, indent=2))


def run_bench(
    sources: Any,
    columns: Any,
    settings: Any,
    *,
    memory: bool,
    quiet: bool = False,
    chart: Path | None = None,
    about: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Measures, prints the table unless ``quiet``, draws the chart where asked, and returns the document.

    Args:
        sources, columns, settings, memory: see ``autopar.benchmarking.ranks.run_ranks``.
        quiet: print nothing.
        chart: where the chart goes.
        about: a line on each model.
    """
    from rich.console import Console

    from autopar.benchmarking.chart import chart_svg
    from autopar.benchmarking.ranks import run_ranks
    from autopar.benchmarking.report import document, footnote, machine, table
    from autopar.benchmarking.summary import summarise

    where = machine()
    measured = run_ranks(sources, columns, settings, memory=memory)
    summaries = [summarise(name, found, columns) for name, found in measured.items()]
    content = document(summaries, measured, settings, where=where, about=about)
    if not quiet:
        console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
        console.print(table(summaries, columns, settings))
        console.print(footnote(summaries, columns, settings), soft_wrap=True)
    if chart is not None:
        chart.write_text(chart_svg(content, columns), encoding="utf-8")
    return content
