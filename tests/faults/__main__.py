"""``make faults``: every fault over both backends, random kills, whole runs; prints what the survivors said."""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections.abc import Sequence

from rich.console import Console

from autopar.view.columns import print_columns
from tests.faults.injection import Result, inject
from tests.faults.training import INJECTED, RANDOM_KILL, Outcome
from tests.faults.whole_runs import killed_saves, restarted_run

_BACKENDS = ("shm", "torch")


def main(arguments: Sequence[str]) -> int:
    """Runs all of it; the exit code is 1 where a survivor hung, a report is not clean or something was left behind."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="kills at random moments, over each backend")
    kills = parser.parse_args(arguments).kills
    rows: list[Sequence[str]] = []
    wrong: list[str] = []
    for backend in _BACKENDS:
        for fault in (fault for fault in INJECTED if fault != RANDOM_KILL):
            print(f"{backend}: {fault}", file=sys.stderr, flush=True)
            result = inject(fault, backend)
            wrong += result.left_behind
            rows += _rows(fault, backend, result)
        if kills:
            row, bad = _random_kills(kills, backend)
            rows.append(row)
            wrong += bad
    for run in (killed_saves, restarted_run):
        fault, told, seconds = run()
        rows.append((fault, "", told, "", f"{seconds:.0f} s"))
        wrong += [fault] if "DIFFER" in told else []
    console = Console(highlight=False, markup=False)
    names = ("fault on rank 1", "backend", "survivors say", "rank 1's last heartbeat", "after")
    print_columns(console, dict(zip(names, (list(column) for column in zip(*rows, strict=True)), strict=True)))
    console.print(f"left behind or wrong: {', '.join(wrong) or 'nothing'}")
    return 1 if wrong else 0


def _random_kills(kills: int, backend: str) -> tuple[Sequence[str], list[str]]:
    results = [inject(RANDOM_KILL, backend) for _ in range(kills)]
    reports = sum(_is_report(result) for result in results)
    longest = max(outcome.seconds for result in results for outcome in result.survivors.values())
    wrong = [one for result in results for one in result.left_behind]
    wrong += [f"{kills - reports} reports over {backend}"] if reports < kills else []
    return (f"{RANDOM_KILL}, {kills} times", backend, f"{reports} clean reports", "", f"{longest:.2f} s"), wrong


def _rows(fault: str, backend: str, result: Result) -> list[Sequence[str]]:
    """One for all survivors where they say the same, else one each."""
    rows: list[Sequence[str]] = []
    alike = len({outcome.checksum for outcome in result.survivors.values()}) == 1
    texts = {rank: _said(outcome, alike=alike) for rank, outcome in result.survivors.items()}
    for text in dict.fromkeys(texts.values()):
        ranks = [rank for rank, own in texts.items() if own == text]
        beat = re.search(r"rank 1 ([\d.]+ s ago at .*?)[;.] ", result.survivors[ranks[0]].said)
        after = max(result.survivors[rank].seconds for rank in ranks)
        who = "both" if len(ranks) == len(texts) else f"rank {ranks[0]}"
        rows.append((fault, backend, f"{who}: {text}", beat[1] if beat else "", f"{after:.2f} s"))
    return rows


def _said(outcome: Outcome, *, alike: bool) -> str:
    if not outcome.said:
        return f"nothing, trains on{'' if alike else ', and the ranks DIFFER'}"
    text = outcome.said.partition(". Another rank")[0]
    text = re.sub(r"^Rank \d of \d lost the others at ", "lost at ", text)
    text = re.sub(r" \[?\d+\.\d+\.\d+\.\d+\]?:\d+", "", text)
    return re.sub(r" \(process \d+\)", "", text)


def _is_report(result: Result) -> bool:
    said = [outcome.said for outcome in result.survivors.values()]
    return all("lost the others at step" in text and "Last heartbeats: rank 0 " in text for text in said)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main(sys.argv[1:]))
