"""How long the pictures take, and how large the page is: a deep model of repeated blocks, one of all different modules.

python -m benchmarks.pictures --nodes 5000
"""

from __future__ import annotations

import itertools
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch
from torch import nn

import autopar
from autopar.compilation import compile_program
from autopar.view.graph_json import graph_document
from autopar.view.lanes import lanes_svg
from autopar.view.page import page_html
from autopar.view.units import count_text
from benchmarks.models import GPT
from tests.view.browser import PROGRAM, Browser

__all__ = ["main"]

_COLUMNS = ("model", "nodes", "`plan.svg`, CPU", "`graph.html`, CPU", "size", "first draw", "all opened")
_ROUNDS = 7


@click.command(help=(__doc__ or "").split("\n")[0])
@click.option("--nodes", default=5000, show_default=True, type=click.IntRange(1), help="In each graph, about.")
@click.option("--browser/--no-browser", default=PROGRAM is not None, help="Measure the page in headless Chromium, too.")
def main(nodes: int, browser: bool) -> None:
    """Print one table, in the Markdown of docs/benchmarks.md."""
    click.echo(f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}")
    for name, document in _documents(nodes):
        click.echo(f"| {' | '.join([name, *_measured(document, browser=browser)])} |")


def _documents(nodes: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Models with a graph of about as many nodes, compiled for four ranks."""
    blocks = max(1, nodes // 46)
    gpt = GPT(vocabulary=64, width=16, heads=2, blocks=blocks, context=8)
    yield f"GPT, {count_text(blocks, 'block')}", _document(gpt, torch.randint(0, 64, (2, 8)))
    draw = random.Random(0)
    widths = [draw.randint(8, 104) for _ in range(max(1, nodes // 5) + 1)]
    layers = [nn.Linear(before, after) for before, after in itertools.pairwise(widths)]
    yield (
        f"{count_text(len(layers), 'linear layer')}, all different",
        _document(nn.Sequential(*layers), torch.randn(2, widths[0])),
    )


def _document(model: nn.Module, sample: torch.Tensor) -> dict[str, Any]:
    compilation = compile_program(model, (sample,), {}, autopar.DDP())
    return graph_document(compilation, strategy="ddp", world_size=4)


def _measured(document: Mapping[str, Any], *, browser: bool) -> Iterator[str]:
    yield f"{len(document['after']['nodes']):,}"
    yield _seconds_text(min(_cpu_seconds(lanes_svg, document) for _ in range(_ROUNDS)))
    yield _seconds_text(min(_cpu_seconds(page_html, document) for _ in range(_ROUNDS)))
    page = page_html(document)
    yield f"{len(page.encode()) / 1e6:.2f} MB"
    if browser:
        yield from map(_seconds_text, _in_browser(page))
    else:
        yield from ("-", "-")


def _cpu_seconds(draw: Callable[[Mapping[str, Any]], str], document: Mapping[str, Any]) -> float:
    started = time.process_time()
    draw(document)
    return time.process_time() - started


def _in_browser(page: str) -> tuple[float, float]:
    """Medians of the seconds from the beginning of the load to the first picture, and for opening all modules."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "graph.html"
        file.write_text(page, encoding="utf-8")
        browser = Browser(Path(folder) / "profile")
        try:
            rounds = [_round(browser, file.as_uri()) for _ in range(_ROUNDS)]
        finally:
            browser.close()
    first, opened = zip(*rounds, strict=True)
    return median(first), median(opened)


def _round(browser: Browser, address: str) -> tuple[float, float]:
    browser.open(address)
    first: float = browser.run("autopar.stats.first")
    started = browser.run("performance.now()")
    browser.run("document.getElementById('expand').click()")
    browser.drawn()
    opened: float = browser.run("performance.now()") - started
    return first / 1e3, opened / 1e3


def _seconds_text(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.0f} ms"


if __name__ == "__main__":
    main()
