"""A training step of every workload: plain, with torch's wrappers and with autopar, two ranks, one run.

python -m benchmarks --workloads deep,gpt --rounds 40 --json build/bench.json --chart docs/pictures/benchmarks.svg
"""

from __future__ import annotations

from pathlib import Path

import click

from autopar.benchmarking.columns import USUAL, select_columns
from autopar.benchmarking.measuring import OPTIMIZERS, Settings
from autopar.benchmarking.report import write_json
from autopar.cli.bench import run_bench
from autopar.errors import AutoparError
from benchmarks.workloads import WORKLOADS, Named, select

__all__ = ["main"]


@click.command(help=(__doc__ or "").split("\n")[0])
@click.option("--workloads", default=",".join(WORKLOADS), show_default=True, metavar="NAME,...")
@click.option("--columns", default=",".join(column.name for column in USUAL), show_default=True, metavar="NAME,...")
@click.option("--rounds", default=Settings().rounds, show_default=True, type=click.IntRange(1))
@click.option("--steps", default=Settings().steps, show_default=True, type=click.IntRange(1), help="In a turn.")
@click.option("--optimizer", default="none", show_default=True, type=click.Choice(list(OPTIMIZERS)))
@click.option("--seed", default=0, show_default=True, help="Of weights, batches and the order of turns.")
@click.option("--memory/--no-memory", default=True, show_default=True, help="Peak memory, a start of all ranks each.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@click.option("--chart", type=click.Path(path_type=Path, dir_okay=False), metavar="SVG")
def main(
    workloads: str,
    columns: str,
    rounds: int,
    steps: int,
    optimizer: str,
    seed: int,
    memory: bool,
    json_file: Path | None,
    chart: Path | None,
) -> None:
    """Measure, print the table, and write JSON and chart where asked."""
    try:
        wanted = select(workloads)
        chosen = select_columns(columns)
    except (ValueError, AutoparError) as error:
        raise click.UsageError(str(error)) from None
    for option, path in (("--json", json_file), ("--chart", chart)):
        if path is not None and not path.absolute().parent.is_dir():
            raise click.BadParameter(f"There is no folder {path.absolute().parent}.", param_hint=option)
    for workload in wanted:
        if workload.absent:
            click.echo(f"{workload.name}: skipped: {workload.absent}", err=True)
    present = [workload for workload in wanted if not workload.absent]
    if not present:
        raise click.ClickException("There is nothing to measure.")
    try:
        content = run_bench(
            {workload.name: Named(workload.name) for workload in present},
            chosen,
            Settings(rounds=rounds, steps=steps, optimizer=optimizer, seed=seed),
            memory=memory,
            chart=chart,
            about={workload.name: workload.summary for workload in present},
        )
    except AutoparError as error:
        raise click.ClickException(str(error)) from None
    if json_file is not None:
        write_json(json_file, content)


if __name__ == "__main__":
    main()
