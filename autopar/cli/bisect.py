"""``autopar bisect``: which pass makes a command fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import rich_click as click

from autopar.cli.completion import files
from autopar.cli.options import debug_option, json_option
from autopar.cli.pass_options import plugin_option
from autopar.cli.runs import read_run
from autopar.cli.terminal import note, results
from autopar.errors import CheckFailedError, UsageError

__all__ = ["bisect"]

_NOT_RUN = (126, 127)  # as shells say it: not executable, not found


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("run", metavar="RUN", shell_complete=files)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="-- CMD [ARGS]...")
@plugin_option
@json_option
@debug_option
def bisect(run: str, words: tuple[str, ...], as_json: bool) -> None:
    """Find the first pass with which a command of yours fails.

    RUN is a folder that transform wrote: its plan says which passes there are. CMD, which compiles the model with the
    same passes, is run several times with the variable AUTOPAR_BISECT_LIMIT=N, which lets only the first N run of those
    that may be left out; exit code 0 is good, any other is bad.
    """
    if not words:
        raise UsageError("There is no command to run.", mend="Write `autopar bisect RUN -- CMD [ARGS]...`.")
    from autopar.passes.bisect import first_bad

    names = _optional(read_run(Path(run)), run)
    runs: list[dict[str, Any]] = []

    def fails(limit: int) -> bool:
        code = _code(words, limit)
        runs.append({"limit": limit, "exit_code": code})
        last = f"up to {names[limit - 1]}" if limit else "none of those that may be left out"
        note(f"{'bad ' if code else 'good'}  {limit} of {len(names)} passes: {last}")
        return code != 0

    found = first_bad(len(names), fails)
    if found is None:
        raise CheckFailedError(
            "The command ends well with all passes, so there is nothing to find.",
            mend="Give one that ends with another exit code than 0 where the fault shows.",
        )
    if found == 0:
        raise CheckFailedError(
            f"The command fails without {', '.join(names) or 'any pass that may be left out'}, too.",
            why="So the fault is in the model, in the command, or in a pass that the strategy builds on.",
        )
    if as_json:
        click.echo(json.dumps({"version": 1, "pass": names[found - 1], "number": found, "runs": runs}, indent=2))
    else:
        results().print(f"The first bad pass is {names[found - 1]}, {found} of {len(names)} that may be left out.")


def _optional(document: dict[str, Any], run: str) -> list[str]:
    """The passes of a run that may be left out, as they are written."""
    plan = document["plan"]
    if plan is None:
        raise UsageError(f"{run} has no plan.", mend="Run `autopar transform` without --stop-after.")
    from autopar.passes.leaving_out import optional
    from autopar.passes.pipeline import parse
    from autopar.strategies import strategies

    entries = parse(plan["pipeline"])
    needed = {entry.name for entry in parse(strategies.get(document["strategy"])().pipeline())}
    return [str(entries[index]) for index in optional(entries, needed)]


def _code(words: tuple[str, ...], limit: int) -> int:
    """Exit code of the command with this limit; standard output is kept for the result."""
    from autopar.passes.leaving_out import LIMIT

    try:
        done = subprocess.run(words, env={**os.environ, LIMIT: str(limit)}, stdout=sys.stderr, check=False)
    except OSError as error:
        raise UsageError(f"{words[0]} cannot be run: {error.strerror}.", mend="Give a command after --.") from None
    if done.returncode in _NOT_RUN:
        raise UsageError(f"{' '.join(words)} ended with exit code {done.returncode}: it was not run.")
    return done.returncode
