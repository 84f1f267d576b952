"""``autopar verify``: proves on a user's model that the parallel training is the plain one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import rich_click as click

from autopar.cli.completion import files
from autopar.cli.configuration import flags_given
from autopar.cli.options import compile_options, debug_option, json_option
from autopar.cli.pass_options import plugin_option
from autopar.cli.terminal import note, results

if TYPE_CHECKING:
    from rich.console import Console

    from autopar.verification import Report

__all__ = ["verify"]

_PRINTED = (
    "plan",
    "strategy",
    "pipeline",
    "pairs",
    "bucket_cap_mb",
    "weight",
    "capture",
)  # what a printed file has in it


@click.command()
@click.argument("file", metavar="FILE[:NAME]", shell_complete=files)
@compile_options
@plugin_option
@click.option("--nproc", type=int, default=2, show_default=True, metavar="N", help="Ranks, or replicas.")
@click.option("--steps", type=int, default=5, show_default=True, metavar="N", help="Training steps to compare.")
@click.option("--optimizer", default="adamw", show_default=True, metavar="NAME", help="adamw, sgd, adam, rmsprop, ...")
@click.option("--lr", type=float, metavar="X", help="Learning rate; without it, the optimizer's default.")
@click.option("--loss", metavar="NAME", help="Function in the file that makes a loss of what the model returns.")
@click.option("--plan", metavar="PLAN", help="Follow this plan.json instead of making a plan.")
@click.option("--program", metavar="PY", help="A transformed.py to verify in place of the compiled program.")
@json_option
@debug_option
def verify(
    file: str,
    how: dict[str, Any],
    nproc: int,
    steps: int,
    optimizer: str,
    lr: float | None,
    loss: str | None,
    plan: str | None,
    program: str | None,
    as_json: bool,
) -> int:
    """Train a model plainly and in parallel, and compare after every step; exit code 1 where they differ.

    Gradients, outputs, buffers and parameters must have the same bits as the untouched model, trained in one
    process on the same parts of the batch; and lie as near to a training on the whole batch as rounding allows.
    The file's definitions are executed in every process; its training code is not.
    """
    if program is not None:
        _refuse_flags()
        how = {"model": how["model"], "inputs": how["inputs"]}
        plan = None
    note("Loading PyTorch")
    from autopar.cli.compiling import Request, resolve_request
    from autopar.verification import Settings, verify_source
    from autopar.verification.sources import PrintedSource, ScriptSource

    request = Request(spec=file, **how, plan=plan)
    chosen, given = resolve_request(request)
    settings = Settings(
        strategy=chosen.name,
        options=request.options,
        pipeline=request.pipeline,
        plan=given,
        capture=request.capture,
        nproc=nproc,
        steps=steps,
        optimizer=optimizer.lower(),
        lr=lr,
    )
    source = ScriptSource(spec=file, model=request.model, inputs=request.inputs, loss=loss)
    printed = None if program is None else PrintedSource(path=program, loss=loss)
    report = verify_source(source, settings, printed=printed, progress=note)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    else:
        print_report(report, results())
    return 0 if report.ok else 1


def print_report(report: Report, console: Console) -> None:
    """Prints a report as a table that says what was compared with what, and the verdict."""
    from rich.text import Text

    from autopar.view.columns import print_columns
    from autopar.view.units import count_text

    def line(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=not console.is_terminal)

    unit = "replica" if report.strategy == "data_parallel" else "rank"
    printed = f" as printed in {report.program}" if report.program else ""
    line(f"{report.model}: {report.strategy} on {count_text(report.parts, unit)}{printed}", "bold")
    line(
        f"{count_text(report.steps, 'step')} of {report.optimizer}, {count_text(report.samples, 'sample')} a step, "
        "against the untouched model in one process"
    )
    line("")
    columns: dict[str, list[str]] = {
        "compared": [check.kind for check in report.checks],
        "with": [check.against for check in report.checks],
        "must be": [check.rule for check in report.checks],
        "values": [f"{check.values:,}" for check in report.checks],
        "furthest": [f"{check.largest:.2g}" if check.largest else "0" for check in report.checks],
        "allowed": [f"{check.allowed:.2g}" if check.allowed else "0" for check in report.checks],
        "": ["ok" if check.ok else "DIFFERS" for check in report.checks],
    }
    styles = ["" if check.ok else "red" for check in report.checks]
    print_columns(console, columns, right=("values", "furthest", "allowed"), styles=styles)
    line("")
    for sentence in report.notes:
        line(sentence, "dim")
    if report.difference is not None:
        line(str(report.difference), "bold red")
    else:
        line("Verified: it trains the same.", "bold green")


def _refuse_flags() -> None:
    """A printed file has its strategy, passes and plan in it; what variables and files say of these does not count."""
    from autopar.errors import UsageError

    given = flags_given(_PRINTED)
    if given:
        raise UsageError(
            f"{', '.join(given)} and --program were both given.",
            why="A printed file has its strategy, passes and plan in it.",
            mend="Leave one of them out.",
        )
