"""From step times to medians, and to ratios that the noise of a shared machine does not move."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autopar.benchmarking.columns import Column, references, subjects
from autopar.benchmarking.ranks import Measured

__all__ = ["Spread", "Summary", "geometric_mean", "round_ratios", "spread", "summarise"]


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One model. Columns that could not train it are in none but ``skipped``.

    Attributes:
        model: its name.
        step_ms: by column, over all steps of all rounds, in milliseconds.
        best: the fastest of torch's columns, and the fastest of those that are compiled, where any were measured.
        to_best: by column of autopar's, its time over that of the best of its kind, over rounds.
        to_plain: by column that communicates, its time over that of the plain module of its kind, over rounds.
        exposed_ms: the same as a difference: what of a step computing does not hide.
        peak_mib: by column, the most memory that a rank held, in MiB.
        graphs: by compiled column, how many graphs the compiler made of a step.
        skipped: columns that cannot train the model, with the reason.
    """

    model: str
    step_ms: dict[str, Spread]
    best: tuple[str, ...]
    to_best: dict[str, Spread]
    to_plain: dict[str, Spread]
    exposed_ms: dict[str, Spread]
    peak_mib: dict[str, float]
    graphs: dict[str, int]
    skipped: dict[str, str]


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


def summarise(model: str, measured: Measured, columns: Sequence[Column]) -> Summary:
    """Sums up one model."""
    samples = measured.steps
    present = [column for column in columns if column.name in samples]
    step_ms = {c.name: spread(1e3 * seconds for block in samples[c.name] for seconds in block) for c in present}
    best = {
        compiled: min(torchs, key=lambda name: step_ms[name].median)
        for compiled in (False, True)
        if (torchs := references(present, compiled=compiled))
    }
    plain = {(c.alone, c.compiled): samples[c.name] for c in present if c.kind == "plain"}
    others = [c for c in present if c.kind != "plain" and (c.alone, c.compiled) in plain]
    beside = [(c.name, plain[c.alone, c.compiled]) for c in others]
    return Summary(
        model=model,
        step_ms=step_ms,
        best=tuple(best.values()),
        to_best={
            column.name: spread(round_ratios(samples[column.name], samples[best[column.compiled]]))
            for column in subjects(present)
            if column.compiled in best and not column.alone
        },
        to_plain={name: spread(round_ratios(samples[name], reference)) for name, reference in beside},
        exposed_ms={
            name: spread(
                1e3 * (statistics.median(ours) - statistics.median(theirs))
                for ours, theirs in zip(samples[name], reference, strict=True)
            )
            for name, reference in beside
        },
        peak_mib={name: peak / 2**20 for name, peak in measured.peak.items() if peak is not None},
        graphs=dict(measured.graphs),
        skipped=dict(measured.skipped),
    )


def geometric_mean(summaries: Sequence[Summary], column: str) -> float | None:
    """Of a column's median ratios to torch's best, over the models that have one."""
    ratios = [summary.to_best[column].median for summary in summaries if column in summary.to_best]
    return statistics.geometric_mean(ratios) if ratios else None
