"""Train the digits three ways from one start and compare: one process, two DDP processes, data_parallel."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

SCRIPT = Path(__file__).with_name("digits.py")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
EPOCHS = 6
REQUIRED_ACCURACY = 0.97
ALLOWED_DIFFERENCE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Run:
    """One way to train: what it is called, how many processes it takes, how it is started."""

    name: str
    processes: int
    launcher: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run leaves behind."""

    weights: dict[str, Tensor]
    accuracy: float
    step_ms: list[float]


RUNS = (
    Run(name="one process, plain PyTorch", processes=1, options=("--strategy", "none")),
    Run(name="ddp, 2 ranks", processes=2, launcher=TORCHRUN, options=("--strategy", "ddp")),
    Run(
        name="data_parallel, 2 replicas",
        processes=1,
        options=("--strategy", "data_parallel"),
    ),
)
EXPLANATION = (
    "Same initial weights and order of global batches (64 images); a rank or replica takes half of each.\n"
    "Computed in float64 without dropout or BatchNorm, so that only the rounding of sums may differ:\n"
    "a wrong gradient would show as 1e-3 or more."
)


def command(run: Run, epochs: int, save: Path) -> list[str]:
    """The command line that starts a run."""
    return [
        sys.executable,
        *run.launcher,
        str(SCRIPT),
        *run.options,
        "--epochs",
        str(epochs),
        "--save",
        str(save),
    ]


def execute(run: Run, epochs: int, folder: Path) -> Result:
    """Run to its end in processes of its own, one thread each so that two ranks fit on two cores."""
    save = folder / "result.pt"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command(run, epochs, save), check=True, env=environment, stdout=subprocess.DEVNULL)
    return Result(**torch.load(save, weights_only=True))


def largest_difference(weights: dict[str, Tensor], reference: dict[str, Tensor]) -> float:
    """The largest absolute difference between two sets of parameters with the same names."""
    if weights.keys() != reference.keys():
        raise ValueError(f"Different parameters: {sorted(weights.keys() ^ reference.keys())}.")
    return max((weights[name] - reference[name]).abs().max().item() for name in reference)


def report(results: dict[Run, Result]) -> Table:
    """The table at the end; the first run is the reference."""
    reference, *_ = results.values()
    table = Table("run", title="Handwritten digits, trained three ways")
    for heading in ("processes", "accuracy", "step, ms: median (quartiles)", "largest parameter difference"):
        table.add_column(heading, justify="right")
    for run, result in results.items():
        low, median, high = statistics.quantiles(result.step_ms, n=4)
        difference = largest_difference(result.weights, reference.weights)
        table.add_row(
            run.name,
            str(run.processes),
            f"{result.accuracy:.2%}",
            f"{median:.1f} ({low:.1f} to {high:.1f})",
            "reference" if result is reference else f"{difference:.1e}",
        )
    return table


def failures(results: dict[Run, Result], required_accuracy: float) -> list[str]:
    """What the demo promises and did not keep, a sentence each."""
    reference, *_ = results.values()
    found = []
    for run, result in results.items():
        difference = largest_difference(result.weights, reference.weights)
        if not result.accuracy > required_accuracy:
            found.append(f"{run.name}: accuracy {result.accuracy:.2%} is not over {required_accuracy:.0%}.")
        if not difference < ALLOWED_DIFFERENCE:
            found.append(f"{run.name}: parameters differ by {difference:.1e} from one process.")
    return found


def main() -> None:
    """Train three times, print the table, and end with 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    epochs = parser.parse_args().epochs

    log, start, results = Console(stderr=True, highlight=False), time.perf_counter(), {}
    with tempfile.TemporaryDirectory() as folder:
        for number, run in enumerate(RUNS, start=1):
            log.print(f"[bold]{number}/{len(RUNS)} {run.name}[/bold]")
            try:
                results[run] = execute(run, epochs, Path(folder))
            except subprocess.CalledProcessError as error:
                sys.exit(f"{run.name} ended with code {error.returncode}; its own message is above.")

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    console.print(report(results))
    console.print(EXPLANATION, soft_wrap=True)
    log.print(f"{time.perf_counter() - start:.0f} s in all")
    broken = failures(results, REQUIRED_ACCURACY if epochs >= EPOCHS else 0.0)
    if broken:
        sys.exit("\n".join(broken))


if __name__ == "__main__":
    main()
