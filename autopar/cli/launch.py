"""``autopar run``: the command in front of ``autopar.scripts.run.run_script``."""

from __future__ import annotations

import os
from pathlib import Path

import rich_click as click

from autopar.cli.completion import files
from autopar.cli.options import Choice, debug_option
from autopar.errors import UsageError

__all__ = ["run"]

# torchrun's switches; every other option of its takes a value, which may stand apart from it.
_SWITCHES = frozenset({"standalone", "no-python", "run-path", "module", "m", "virtual-local-rank"})
_OWN = frozenset({"nproc", "device", "no-replace", "quiet", "show-config", "trace", "debug", "verbose", "q", "v"})


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--nproc", type=int, metavar="N", help="Processes on this machine; without it, one.")
@click.option("--device", type=Choice(["cpu", "cuda"]), help="Where to run; without it, what is there.")
@click.option("--trace", metavar="DIR", help="Measure steps, and write them beside the predicted one.")
@click.option("--no-replace", is_flag=True, help="Leave torch's DataParallel and DistributedDataParallel alone.")
@debug_option
@click.argument(
    "words", nargs=-1, type=click.UNPROCESSED, metavar="[TORCHRUN OPTIONS] SCRIPT [ARGS]...", shell_complete=files
)
@click.pass_obj
def run(
    settings: dict[str, bool],
    nproc: int | None,
    device: str | None,
    trace: str | None,
    no_replace: bool,
    words: tuple[str, ...],
) -> int:
    """Run a script, its DataParallel or DistributedDataParallel replaced by autopar's.

    Options that are not listed here go to torchrun; everything after SCRIPT goes to the script.
    """
    from autopar.scripts.run import run_script

    if settings.get("quiet"):
        os.environ["AUTOPAR_QUIET"] = "1"  # of the script's processes
    launcher, rest = _split(words)
    if not rest:
        raise UsageError("There is no script to run.", mend="Write `autopar run [options] SCRIPT [ARGS]...`.")
    return run_script(
        rest[0],
        rest[1:],
        nproc=nproc,
        device=device,
        replace=not no_replace,
        torchrun_args=launcher,
        debug=settings["debug"],
        trace=None if trace is None else Path(trace),
    )


def _split(words: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """torchrun's options, and the script with its arguments."""
    position = 0
    while position < len(words) and words[position].startswith("-"):
        word = words[position]
        position += 1
        if word == "--":
            return list(words[: position - 1]), list(words[position:])
        name = word.lstrip("-").replace("_", "-")
        if name.partition("=")[0] in _OWN:
            raise UsageError(f"{word} stands behind an option of torchrun's.", mend="Put autopar's own options first.")
        attached = "=" in word or (word[1] != "-" and len(word) > 2)  # as in -r3
        if not attached and name not in _SWITCHES:
            position += 1
    return list(words[:position]), list(words[position:])
