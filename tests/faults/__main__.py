"""``make faults``: every fault over both backends, and random kills; prints what the survivors said."""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections.abc import Sequence

from rich.console import Console

from autopar.view.columns import print_columns
from tests.faults.injection import Result, inject
from tests.faults.training import INJECTED, RANDOM_KILL

_BACKENDS = ("shm", "torch")


def main(arguments: Sequence[str]) -> int:
    """Runs all of it; the exit code is 1 where a survivor hung or something was left behind."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="kills at random moments, over each backend")
    kills = parser.parse_args(arguments).kills
    rows: list[tuple[str, str, str, str]] = []
    left: list[str] = []
    for backend in _BACKENDS:
        for fault in (fault for fault in INJECTED if fault != RANDOM_KILL):
            result = inject(fault, backend)
            left += result.left_behind
            rows.append((fault, backend, *_told(result)))
            print(f"{backend}: {fault}", file=sys.stderr, flush=True)
        results = [inject(RANDOM_KILL, backend) for _ in range(kills)]
        left += [one for result in results for one in result.left_behind]
        if results:
            reports = sum(_is_report(result) for result in results)
            longest = max(outcome.seconds for result in results for outcome in result.survivors.values())
            rows.append((f"{RANDOM_KILL}, {kills} times", backend, f"{reports} clean reports", f"{longest:.2f} s"))
    console = Console(highlight=False, markup=False)
    names = ("fault on rank 1", "backend", "rank 0 says", "after")
    print_columns(console, dict(zip(names, (list(column) for column in zip(*rows, strict=True)), strict=True)))
    console.print(f"left behind: {', '.join(left) or 'nothing'}")
    return 1 if left else 0


def _told(result: Result) -> tuple[str, str]:
    first = result.survivors[0]
    after = f"{first.seconds:.2f} s"
    if first.said:
        text = re.sub(r"\d+\.\d+\.\d+\.\d+\]?:\d+", "...", first.said.partition(". Another rank")[0])
        return re.sub(r"process \d+", "process n", text), after
    alike = len({outcome.checksum for outcome in result.survivors.values()}) == 1
    return f"nothing: it trains on, {'all survivors alike' if alike else 'and the ranks differ'}", after


def _is_report(result: Result) -> bool:
    return all("lost the others at step" in outcome.said for outcome in result.survivors.values())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main(sys.argv[1:]))
