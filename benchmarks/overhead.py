"""What communication costs: a training step against the plain module and torch's DDP, two ranks, one run.

python -m benchmarks.overhead --workloads deep,gpt --rounds 40 --json overhead.json
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console
from torch.multiprocessing.spawn import ProcessRaisedException

from benchmarks.measuring import OPTIMIZERS, Settings
from benchmarks.ranks import run_ranks
from benchmarks.report import document, footnote, table, write_json
from benchmarks.summary import summarise
from benchmarks.variants import AUTOPAR, PLAIN, torch_ddp
from benchmarks.workloads import WORKLOADS, select

__all__ = ["main"]


@click.command(help=(__doc__ or "").split("\n")[0])
@click.option("--workloads", default=",".join(WORKLOADS), show_default=True, metavar="NAME,...")
@click.option("--rounds", default=Settings().rounds, show_default=True, type=click.IntRange(1))
@click.option("--steps", default=Settings().steps, show_default=True, type=click.IntRange(1), help="In a turn.")
@click.option("--optimizer", default="none", show_default=True, type=click.Choice(list(OPTIMIZERS)))
@click.option("--seed", default=0, show_default=True, help="Of weights, batches and the order of turns.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
def main(workloads: str, rounds: int, steps: int, optimizer: str, seed: int, json_file: Path | None) -> None:
    """Measure, print the table, and write the JSON where asked."""
    try:
        names = [workload.name for workload in select(workloads)]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--workloads") from None
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise click.BadParameter(f"There is no folder {json_file.absolute().parent}.", param_hint="--json")

    settings = Settings(rounds=rounds, steps=steps, optimizer=optimizer, seed=seed)
    try:
        samples = run_ranks(names, settings)
    except ProcessRaisedException as error:
        raise click.ClickException(f"A rank failed, so there is nothing to report.{error}") from None
    summaries = [
        summarise(name, samples[name], subject=AUTOPAR.name, plain=PLAIN.name, references=torch_ddp()) for name in names
    ]
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(table(summaries, settings))
    console.print(footnote(summaries, settings), soft_wrap=True)
    if json_file is not None:
        write_json(json_file, document(summaries, samples, settings))


if __name__ == "__main__":
    main()
