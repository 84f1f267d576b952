"""From step times to medians, and to ratios that the noise of a shared machine does not move."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Spread", "Summary", "geometric_mean", "round_ratios", "spread", "summarise"]


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One workload.

    Attributes:
        workload: its name.
        step_ms: by variant, over all steps of all rounds, in milliseconds.
        best: the reference variant with the smallest median step.
        to_best: the subject's time over that of ``best``, over rounds.
        to_plain: the subject's time over that of the variant without communication, over rounds.
    """

    workload: str
    step_ms: dict[str, Spread]
    best: str
    to_best: Spread
    to_plain: Spread


def spread(values: Iterable[float]) -> Spread:
    """Median and quartiles, by linear interpolation; of a single value, that value three times.

    >>> spread([4.0, 1.0, 2.0, 3.0, 5.0])
    Spread(median=3.0, low=2.0, high=4.0)
    """
    ordered = sorted(values)
    if len(ordered) == 1:
        return Spread(ordered[0], ordered[0], ordered[0])
    low, median, high = statistics.quantiles(ordered, n=4, method="inclusive")
    return Spread(median, low, high)


def round_ratios(subject: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]) -> list[float]:
    """For every round, the subject's median step over the reference's.

    Both were measured within a second of each other, so a slow minute of the machine cancels out.

    >>> round_ratios([[1.0, 1.0, 9.0], [4.0]], [[2.0, 2.0, 2.0], [8.0]])
    [0.5, 0.5]
    """
    return [
        statistics.median(ours) / statistics.median(theirs) for ours, theirs in zip(subject, reference, strict=True)
    ]


def summarise(
    workload: str,
    samples: Mapping[str, Sequence[Sequence[float]]],
    *,
    subject: str,
    plain: str,
    references: Sequence[str],
) -> Summary:
    """Sum up one workload from ``samples``: seconds of every step by variant and round."""
    step_ms = {name: spread(1e3 * seconds for block in rounds for seconds in block) for name, rounds in samples.items()}
    best = min(references, key=lambda name: step_ms[name].median)
    return Summary(
        workload=workload,
        step_ms=step_ms,
        best=best,
        to_best=spread(round_ratios(samples[subject], samples[best])),
        to_plain=spread(round_ratios(samples[subject], samples[plain])),
    )


def geometric_mean(summaries: Sequence[Summary]) -> float:
    """Of the median ratios to the best reference, over workloads."""
    return statistics.geometric_mean(summary.to_best.median for summary in summaries)
