"""``python -m tests.zoo [NAME...]``: all checks on all models, and the page docs/coverage.md.

With ``--capture NAME`` in front, what one front end of capture takes by itself is printed and nothing else is run.
With names, only those run and the page is printed instead. The exit status is 1 when a model fails that
is not known to, or when one passes that is known to fail.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.libraries import missing
from tests.zoo import front_ends, one_process, two_ranks
from tests.zoo.known_failures import KNOWN_FAILURES
from tests.zoo.registry import ZOO
from tests.zoo.report import PAGE, Row, render
from tests.zoo.survey import Found, survey

Say = Callable[[str, Found], None]


def main(names: Sequence[str]) -> int:
    """Runs the checks and writes the page."""
    forced, names = (names[1], names[2:]) if names[:1] == ["--capture"] else ("", names)
    unknown = [name for name in names if name not in ZOO]
    if unknown:
        print(f"No such model: {', '.join(unknown)}. There are {', '.join(ZOO)}.", file=sys.stderr)
        return 2
    chosen = [name for name in names or ZOO if not missing(ZOO[name].library)]
    absent = sorted({entry.library for entry in ZOO.values() if missing(entry.library)})
    if absent:
        print(f"Not installed, so not run: {', '.join(absent)}.", file=sys.stderr)
    if forced:
        return front_ends.main(forced, chosen)
    with _progress(2 * len(chosen)) as say:
        alone = _run("one process", one_process.check, chosen, 1, say)
        ranks = _run("two ranks", two_ranks.check, chosen, 2, say)
    rows = [
        Row(
            entry=ZOO[name],
            outcome=alone[name].results[0] if alone[name].results else None,
            ranks=ranks[name].results,
            failure=_last_line(alone[name].failure or ranks[name].failure),
        )
        for name in chosen
    ]
    page = render(rows)
    if names or absent:
        print(page)
    else:
        PAGE.write_text(page, encoding="utf-8")
        print(f"wrote {PAGE.relative_to(PAGE.parents[1])}")
    surprises = [row for row in rows if row.passed == (row.entry.name in KNOWN_FAILURES)]
    for row in surprises:
        verdict = "passes, but is known to fail" if row.passed else f"fails: {row.failure or row.worst}"
        print(f"{row.entry.name} {verdict}", file=sys.stderr)
    return 1 if surprises else 0


def _run(title: str, check: Callable[..., Any], names: Sequence[str], world_size: int, say: Say) -> dict[str, Found]:
    results = {}
    for found in survey(check, names, world_size):
        results[found.name] = found
        say(title, found)
    return results


def _last_line(failure: str) -> str:
    lines = [line for line in failure.strip().splitlines() if not line.startswith((" ", "rank "))]
    return lines[-1] if lines else failure.strip()


@contextmanager
def _progress(total: int) -> Iterator[Say]:
    """A bar on a terminal, plain lines elsewhere; on standard error."""
    console = Console(stderr=True)
    if not console.is_terminal:
        done = iter(range(1, total + 1))
        yield lambda title, found: print(
            f"{next(done)}/{total} {title}: {found.name} {'failed' if found.failure else 'done'}",
            file=sys.stderr,
            flush=True,
        )
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("zoo", total=total)
        yield lambda title, found: bar.update(task, advance=1, description=f"{title}: {found.name}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
