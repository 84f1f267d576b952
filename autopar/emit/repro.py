"""Prints a file that shows a pass's failure again."""

from __future__ import annotations

import inspect
import platform
import textwrap
from pathlib import Path

import torch

from autopar import __version__
from autopar.emit.imports import Imports
from autopar.emit.layout import LINE_LENGTH, call, prefixed, render
from autopar.emit.literals import Writer
from autopar.emit.names import in_text, quoted
from autopar.emit.samples import Source, model_file, relative, sample_inputs
from autopar.passes.base import PassContext
from autopar.passes.pipeline import parse
from autopar.passes.pipeline import render as render_pipeline
from autopar.passes.plugin_files import plugin_files
from autopar.program import Program
from autopar.strategies.base import strategies

__all__ = ["emit_repro"]


def emit_repro(
    program: Program,
    ctx: PassContext,
    *,
    passed: int,
    error: Exception,
    source: Source,
    folder: Path,
) -> str:
    """Prints the way to a failure: the model, its sample call, the pipeline and the graph that the pass was given.

    Args:
        program: as it was before the pass.
        ctx: what the passes knew.
        passed: how many passes came before the one that failed.
        error: what it raised, or the verifier after it.
        source: where the model is.
        folder: the folder that the file will lie in.

    Returns:
        Python source that raises the same error when it is run.
    """
    entries = parse(ctx.pipeline)[: passed + 1]
    imports = Imports()
    write = Writer(imports, str)
    place = relative(source.file, folder)
    about = f"captures the model in {in_text(place)} again and takes it through the pipeline up to that pass."
    made = (
        f"Made by autopar {__version__} with torch {torch.__version__} and Python {platform.python_version()}. "
        f"What the pass was given ({len(program.graph.nodes)} nodes) stands at the end, to be read."
    )
    head = [
        f'"""Pass {in_text(repr(entries[-1].name))} fails on {in_text(program.name)}.',
        "",
        *textwrap.wrap(in_text(str(error)), LINE_LENGTH, break_long_words=False),
        "",
        "    python repro.py",
        "",
        *textwrap.wrap(about, LINE_LENGTH),
        *textwrap.wrap(made, LINE_LENGTH),
        '"""',
    ]
    taken = inspect.signature(strategies.get(ctx.strategy)).parameters  # passes may have added others
    keywords = {
        "pipeline": render_pipeline(entries),
        "strategy": ctx.strategy,
        "options": {name: ctx.options[name] for name in ctx.options if name in taken},
        "world_size": ctx.world_size,
        "capture": program.front_end,
        "graph": program.digest(),
    }
    given = [prefixed(f"{name}=", write.expression(value)) for name, value in keywords.items()]
    if ctx.plan is not None:
        given.append(f"plan={quoted(ctx.plan.to_json())}")
    plugins = plugin_files()
    if plugins:
        given.append(f"plugins=[{', '.join(f'HERE / {quoted(relative(plugin, folder))}' for plugin in plugins)}]")
    arguments = ["MODEL_FILE", quoted(source.name), "sample_inputs", *given]
    reproduce = call(f"{imports.member('autopar.emit', 'rerun')}.reproduce", arguments)
    body = ['if __name__ == "__main__":', *render(reproduce, indent="    ")]
    listing = [f"# {line}" for line in program.code.strip().splitlines() if line.strip()]
    sections = [sample_inputs(imports, program), body, listing]
    constants = model_file(imports, place)
    lines = [*head, "", *imports.lines(), "", *constants]
    for section in sections:
        lines += ["", "", *section]
    return "\n".join([*lines, ""])
