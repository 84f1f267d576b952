"""``autopar explain``: what of a model the compiler does not see, where, why, and what would free it."""

from __future__ import annotations

import json
import linecache
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import rich_click as click

from autopar.cli.options import compile_options, debug_option, json_option, read_options
from autopar.cli.terminal import results

if TYPE_CHECKING:
    from autopar.program import Remark

__all__ = ["explain"]


@click.command()
@click.argument("file", metavar="FILE[:NAME]")
@compile_options
@json_option
@debug_option
def explain(
    file: str,
    as_json: bool,
    strategy: str | None,
    model: str | None,
    inputs: tuple[str, ...],
    capture: str,
    pipeline: str | None,
    bucket_cap_mb: float | None,
    pairs: tuple[str, ...],
) -> None:
    """Say what of a model stays opaque: each piece with its size, the line that forced it, and a way to free it."""
    from autopar.cli.compiling import Request, compile_script
    from autopar.view.graph_json import graph_document
    from autopar.view.summary import summary

    compiled = compile_script(
        Request(
            spec=file,
            model=model,
            strategy=strategy,
            options=read_options(pairs, bucket_cap_mb),
            inputs=inputs,
            capture=capture,
            world_size=None,
            pipeline=pipeline,
        )
    )
    figures = summary(graph_document(compiled.compilation, strategy=compiled.strategy.name, world_size=None))
    if as_json:
        keys = ("model", "front_end", "operation_level", "opaque", "found")
        click.echo(json.dumps({"version": 1, **{key: figures[key] for key in keys}}, indent=2))
        return
    console = results()
    for line in _lines(figures, compiled.compilation.remarks):
        console.print(line, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def _lines(figures: Mapping[str, Any], remarks: Sequence[Remark]) -> Iterator[str]:
    from autopar.view.units import bytes_text

    share = figures["operation_level"]
    seen = "" if share is None else f": {share:.0%} of its parameter bytes are in operations that the compiler sees"
    yield f"{figures['model']}{seen}."
    missed = [remark for remark in remarks if remark.kind == "missed"]
    for remark in sorted(missed, key=lambda one: -one.nbytes):
        yield ""
        yield f"{remark.message} {bytes_text(remark.nbytes)} of parameters."
        if remark.source is not None:
            yield f"  {remark.source}: {linecache.getline(remark.source.file, remark.source.line).strip()}"
        if remark.mend:
            yield f"  {remark.mend}"
    if not missed:
        yield "Nothing stays opaque."
    for remark in remarks:
        if remark.kind == "analysis" and remark.stage == "capture":
            yield ""
            yield remark.message
