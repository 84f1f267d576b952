"""``autopar transform``: a model file in, the parallel program and its pictures out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import rich_click as click

from autopar.cli.completion import files
from autopar.cli.options import (
    compile_options,
    debug_option,
    json_option,
    rate_option,
    with_rates,
    world_size_option,
)
from autopar.cli.pass_options import pass_options, print_counters, print_timing
from autopar.cli.terminal import results

__all__ = ["transform"]


@click.command()
@click.argument("file", metavar="FILE[:NAME]", shell_complete=files)
@compile_options
@world_size_option
@rate_option
@click.option("-o", "--output", default="out", show_default=True, metavar="DIR", help="Folder to write to.")
@click.option("--plan", metavar="FILE", help="Follow this plan.json instead of making a plan.")
@pass_options
@json_option
@debug_option
def transform(
    file: str,
    how: dict[str, Any],
    world_size: int | None,
    rates: dict[str, str],
    output: str,
    plan: str | None,
    steering: dict[str, Any],
    timing: bool,
    counters: bool,
    as_json: bool,
) -> None:
    """Write the data-parallel form of a model: Python, plan and pictures.

    The file's definitions are executed to build the model; its training code is not.
    """
    from autopar.cli.compiling import Request, compile_script
    from autopar.cli.output import check_folder, write_folder

    folder = Path(output)
    check_folder(folder)
    compiled = compile_script(
        Request(spec=file, **how, world_size=world_size, rates=rates, plan=plan, folder=folder, **steering)
    )
    from autopar.view.graph_json import graph_document
    from autopar.view.remarks import remark_records, write_remarks
    from autopar.view.summary import print_summary, summary

    document = graph_document(compiled.compilation, strategy=compiled.strategy.name, world_size=world_size)
    with_rates(document, rates)
    records = remark_records(compiled.compilation.remarks)
    files = {**_pictures(document), "remarks.jsonl": write_remarks(records), **compiled.instruments.files}
    stopped = steering["stop_after"] is not None
    if not stopped:
        files = {**_program(compiled, folder), **files}
    written = [str(path) for path in write_folder(folder, files)]
    if timing:
        print_timing(document["passes"])
    if counters:
        print_counters(document["passes"])
    figures = summary(document)
    if as_json:
        click.echo(json.dumps({"version": 1, **figures, "files": written}, indent=2))
    elif stopped:
        click.echo(compiled.compilation.lowered.code.strip())
    else:
        print_summary(figures, results(), files=written)


def _program(compiled: Any, folder: Path) -> dict[str, str]:
    from autopar.emit import emit_python

    source = compiled.instruments.source
    return {
        "transformed.py": emit_python(compiled.compilation, source=source, folder=folder.absolute()),
        "plan.json": compiled.compilation.plan.to_json(),
    }


def _pictures(document: dict[str, Any]) -> dict[str, str]:
    from autopar.cli.formats import rendered

    return {
        "graph.json": rendered(document, "json"),
        "graph_before.dot": rendered(document, "dot", "before"),
        "graph_after.dot": rendered(document, "dot"),
        "graph.svg": rendered(document, "graph-svg"),
        "graph.html": rendered(document, "html"),
        "plan.svg": rendered(document, "svg"),
        "trace.json": rendered(document, "trace"),
    }
