"""``python -m tests.parity [REGEX...]``: the wheel's DDP tests with autopar's drop-in in DDP's place.

Without names all tests run, on 2 and on 3 ranks, and the page docs/parity.md is written; with names those
that match one of them. The exit status is 1 when a test fails that is not among the excluded ones, or when
an excluded one passes.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.parity.expected import EXCLUDED, SLOW
from tests.parity.report import PAGE, Row, read, render, surprises, write

_TIMEOUT = 60.0  # seconds a test may take; they take one or two
_WORLD_SIZES = (2, 3)


def main(arguments: list[str] | None = None) -> int:
    """Runs the tests; see the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("patterns", nargs="*", metavar="REGEX", help="only tests whose name matches one of these")
    parser.add_argument("--world-size", type=int, choices=_WORLD_SIZES, help="only this many ranks")
    parser.add_argument("--ddp", choices=["autopar", "torch"], default="autopar", help="torch runs its own DDP")
    parser.add_argument("--log", default=os.devnull, metavar="FILE", help="takes what the tests print")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="write the outcomes to a JSON file")
    options = parser.parse_args(arguments)
    if options.world_size is not None:
        rows = _run(options.world_size, options.patterns, options.ddp, options.log)
        if options.rows:
            write(options.rows, rows)
    else:
        rows = [row for size in _WORLD_SIZES for row in _run_apart(size, options)]
    if not options.patterns and options.world_size is None and options.ddp == "autopar":
        PAGE.write_text(render(rows), encoding="utf-8")
        print(f"wrote {PAGE.relative_to(PAGE.parents[1])}")
    outcomes = [row.outcome for row in rows]
    print(", ".join(f"{outcomes.count(one)} {one}" for one in ("passed", "failed", "excluded", "skipped")))
    found = surprises(rows) if options.ddp == "autopar" else []
    for surprise in found:
        print(surprise, file=sys.stderr)
    return 1 if found else 0


def _run_apart(world_size: int, options: argparse.Namespace) -> list[Row]:
    """Runs one world size in a process of its own: the tests read it when they are imported."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        command = [sys.executable, "-W", "ignore", "-m", "tests.parity", *options.patterns]
        command += ["--world-size", str(world_size), "--ddp", options.ddp, "--log", options.log, "--rows", str(file)]
        subprocess.run(command, check=False)
        return read(file) if file.exists() else []


def _run(world_size: int, patterns: list[str], ddp: str, log: str) -> list[Row]:
    from tests.parity.forked import on_ranks
    from tests.parity.wheel import WheelTests, skip_codes

    substitute = None
    if ddp == "autopar":
        from autopar.nn.distributed import DistributedDataParallel

        substitute = DistributedDataParallel
    tests = WheelTests(substitute, world_size)
    rows = []
    for name in tests.names:
        if name in SLOW or (patterns and not any(re.search(pattern, name) for pattern in patterns)):
            continue
        run = tests.prepare(name)
        outcome = on_ranks(run, world_size, timeout=_TIMEOUT, skips=skip_codes(), log=log)
        row = Row(name, world_size, outcome.verdict, outcome.reason, EXCLUDED.get(name, ""))
        print(
            f"{row.outcome:9}{outcome.seconds:5.1f} s  {world_size} ranks  {name}  {row.headline}".rstrip(), flush=True
        )
        rows.append(row)
    return rows


sys.exit(main())
