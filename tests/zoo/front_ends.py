"""What one front end of capture takes by itself of the zoo, and why not the others (``--capture NAME``)."""

from __future__ import annotations

import functools
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from autopar.capture.ladder import capture
from autopar.errors import ModelError
from tests.zoo.entry import Entry
from tests.zoo.steps import build, make_inputs
from tests.zoo.survey import survey

__all__ = ["Taken", "check", "main"]

_SAMPLES = 2


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of one model: the reason of a refusal, empty where it was captured, and the seconds it took."""

    reason: str
    seconds: float


def check(entry: Entry, front_end: str) -> Taken:
    """Captures a model with one front end, and compares it with eager."""
    model, inputs = build(entry), make_inputs(entry, _SAMPLES, seed=10)
    args, kwargs = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
    started, reason = time.perf_counter(), ""
    try:
        capture(model, args, kwargs, front_end=front_end)
    except ModelError as error:
        reason = error.what
    return Taken(reason, time.perf_counter() - started)


def main(front_end: str, names: Sequence[str]) -> int:
    """Prints a line for each model as it is done, and the sums."""
    seconds, reasons = [], Counter[str]()
    for found in survey(functools.partial(check, front_end=front_end), names, 1):
        taken = found.results[0] if found.results else Taken(found.failure.strip().splitlines()[-1], 0.0)
        print(f"{found.name}: {taken.reason or 'taken'} ({taken.seconds:.1f} s)", flush=True)
        if taken.reason:
            reasons[_kind(taken.reason)] += 1
        else:
            seconds.append(taken.seconds)
    middle = sorted(seconds)[len(seconds) // 2] if seconds else 0.0
    print(f"{front_end} takes {len(seconds)} of {len(names)} models; the median of those takes {middle:.1f} s")
    for reason, count in reasons.most_common():
        print(f"{count:4d}  {reason}")
    return 0


def _kind(reason: str) -> str:
    """The reason without the model's names and numbers."""
    return re.sub(r"'[^']*'|\d+", "...", reason.partition(": ")[2] or reason)[:100]
