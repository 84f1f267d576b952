"""``autopar explain``: the remarks of a model or a run, each with its line and mend, or the page of a code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import rich_click as click

from autopar.cli.completion import files
from autopar.cli.options import compile_options, debug_option, json_option
from autopar.cli.runs import read_run, read_run_remarks, refuse_compiling
from autopar.cli.terminal import results

__all__ = ["explain"]

_CODE = re.compile(r"AP\d+", re.IGNORECASE)


def _list(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Prints a line for each code, and ends."""
    if not wanted or ctx.resilient_parsing:
        return
    from autopar.codes import CODES

    for code, (kind, title) in CODES.items():
        click.echo(f"{code}  {kind:<8}  {title}")
    ctx.exit()


@click.command()
@click.argument("target", metavar="FILE[:NAME]|FOLDER|CODE", shell_complete=files)
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_list, help="Print all codes.")
@click.option("--missed", metavar="REGEX", help="Only these remarks on what could not be done; . is all.")
@click.option("--passed", metavar="REGEX", help="Remarks on what was done that match.")
@click.option("--analysis", metavar="REGEX", help="Remarks on what was found out that match.")
@compile_options
@json_option
@debug_option
def explain(
    target: str,
    missed: str | None,
    passed: str | None,
    analysis: str | None,
    as_json: bool,
    how: dict[str, Any],
) -> None:
    """Say what of a model stays opaque: each piece with its size, the line that forced it, and a way to free it.

    FOLDER is one that transform wrote. With a CODE such as AP103, which errors and remarks carry, say what it means.
    """
    if _CODE.fullmatch(target):
        _print_page(target.upper(), as_json)
        return
    document, records = _read(Path(target)) if Path(target).is_dir() else (None, None)
    if document is None or records is None:
        from autopar.cli.compiling import Request, compile_script
        from autopar.view.graph_json import graph_document
        from autopar.view.remarks import remark_records

        compiled = compile_script(Request(spec=target, **how))
        document = graph_document(compiled.compilation, strategy=compiled.strategy.name)
        records = remark_records(compiled.compilation.remarks)
    from autopar.view.remarks import matching
    from autopar.view.summary import summary

    figures = summary(document)
    patterns = {"missed": missed, "passed": passed, "analysis": analysis}
    asked = any(pattern is not None for pattern in patterns.values())
    chosen = matching(records, patterns) if asked else _usual(records)
    if as_json:
        keys = ("model", "front_end", "operation_level", "opaque", "found")
        found = {"version": 1, **{key: figures[key] for key in keys}, "remarks": chosen}
        click.echo(json.dumps(found, indent=2))
        return
    console = results()
    for line in _lines(figures, chosen, asked=asked):
        console.print(line, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def _read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    refuse_compiling(folder)
    return read_run(folder), read_run_remarks(folder)


def _usual(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What stays opaque, the largest first, and what capture found out."""
    missed = sorted((one for one in records if one["kind"] == "missed"), key=lambda one: -int(one["bytes"]))
    return [*missed, *(one for one in records if one["kind"] == "analysis" and one["stage"] == "capture")]


def _lines(figures: Mapping[str, Any], records: Sequence[Mapping[str, Any]], *, asked: bool) -> Iterator[str]:
    from autopar.view.remarks import remark_lines
    from autopar.view.units import share_text

    share = figures["operation_level"]
    seen = (
        ""
        if share is None
        else f": {share_text(share)} of its parameter bytes are in operations that the compiler sees"
    )
    yield f"{figures['model']}{seen}."
    for record in records:
        yield ""
        yield from remark_lines(record)
    if asked and not records:
        yield "No remark matches."
    elif not asked and not any(record["kind"] == "missed" for record in records):
        yield "Nothing stays opaque."
    codes = sorted({record["code"] for record in records if record["code"]})
    if codes:
        yield ""
        yield f"`autopar explain {codes[0]}` says more of a code."


def _print_page(code: str, as_json: bool) -> None:
    from autopar.codes import CODES, page

    text = page(code)
    if as_json:
        kind, title = CODES[code]
        click.echo(json.dumps({"version": 1, "code": code, "kind": kind, "title": title, "page": text}, indent=2))
        return
    console = results()
    if not console.is_terminal:
        click.echo(text, nl=False)
        return
    from rich.markdown import Markdown

    console.print(Markdown(text))
