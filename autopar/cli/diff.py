"""``autopar diff``: what differs between two runs of ``autopar transform``."""

from __future__ import annotations

import json
from pathlib import Path

import rich_click as click

from autopar.cli.completion import files
from autopar.cli.options import debug_option, json_option
from autopar.cli.runs import read_run
from autopar.cli.terminal import results

__all__ = ["diff"]


@click.command()
@click.argument("first", metavar="RUN_A", shell_complete=files)
@click.argument("second", metavar="RUN_B", shell_complete=files)
@json_option
@debug_option
def diff(first: str, second: str, as_json: bool) -> int:
    """Say what differs between two runs of transform; exit code 1 where anything does.

    A run is a folder that transform wrote, or its graph.json. Plan and graphs are compared; times, source lines and
    how nodes are numbered are not.
    """
    from rich.text import Text

    from autopar.view.diff import diff_documents
    from autopar.view.diff_text import diff_lines

    found = diff_documents(read_run(Path(first)), read_run(Path(second)))
    console = results()
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif found["equal"]:
        console.print("No difference: the same plan, the same graph.")
    else:
        styles = {"-": "red", "+": "green", "~": "yellow"}
        for line in diff_lines(found):
            style = styles.get(line.strip()[0], "") if line.startswith(" ") else "bold"
            console.print(Text(line, style=style), soft_wrap=True)
    return 0 if found["equal"] else 1
