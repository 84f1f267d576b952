"""The wire of ``plan.svg``: each bucket stands beside the backward that it travels behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autopar.view.palette import bucket_colour
from autopar.view.predict import Step, Transfer
from autopar.view.svg import chip, fit, rect, text, tooltip
from autopar.view.theme import BACKWARD, LABELS, ROW, WIDTH, WIRE
from autopar.view.units import bytes_text, count_text, seconds_text

__all__ = ["Clock", "draw_wire", "grouped", "spread"]

_MARK = 8  # pixels of a triangle's height


@dataclass(frozen=True, slots=True)
class Clock:
    """Where a moment of backward stands: upwards, each stretch of lines at its own speed.

    Attributes:
        marks: pairs of seconds and pixels, seconds rising and pixels falling.
    """

    marks: tuple[tuple[float, float], ...]

    def y(self, seconds: float) -> float:
        """The height of a moment; what is outside is at the nearer end.

        >>> Clock(((1.0, 100.0), (2.0, 50.0), (4.0, 0.0))).y(3.0)
        25.0
        """
        before = self.marks[0]
        for mark in self.marks[1:]:
            if seconds <= mark[0] and mark[0] > before[0]:
                share = max(0.0, (seconds - before[0]) / (mark[0] - before[0]))
                return before[1] + share * (mark[1] - before[1])
            before = mark
        return before[1]


def grouped(transfers: Sequence[Transfer], *, most: int) -> list[tuple[Transfer, ...]]:
    """Neighbours in launch order, so that at most ``most`` groups are drawn."""
    size = max(1, -(-len(transfers) // max(most, 1)))
    return [tuple(transfers[start : start + size]) for start in range(0, len(transfers), size)]


def spread(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Places near the wanted ones, falling, at least ``gap`` apart and between ``low`` and ``high``.

    >>> spread([90.0, 88.0, 10.0], gap=20.0, low=0.0, high=100.0)
    [90.0, 70.0, 10.0]
    >>> spread([5.0, 4.0, 3.0], gap=20.0, low=0.0, high=100.0)
    [40.0, 20.0, 0.0]
    """
    found: list[float] = []
    for one in wanted:
        found.append(min(one, high if not found else found[-1] - gap))
    floor = low
    for index in reversed(range(len(found))):
        found[index] = max(found[index], floor)
        floor = found[index] + gap
    return found


def draw_wire(document: Mapping[str, Any], step: Step, clock: Clock, top: float, bottom: float) -> Iterator[str]:
    """Bars for the all-reduces, their beginnings and ends on the backward lane, and what they carry."""
    if not step.transfers:
        yield text(WIRE, top + 15, "nothing: no bucket in this plan", css="quiet")
        return
    groups = grouped(step.transfers, most=int((bottom - top) / ROW))
    tensors = {bucket["index"]: bucket["parameters"] for bucket in document["plan"]["buckets"]}
    forms = {bucket["index"]: bucket.get("compression", "") for bucket in document["plan"]["buckets"]}
    middles = [(clock.y(group[0].start) + clock.y(group[-1].end)) / 2 - ROW / 2 for group in groups]
    labels = spread(middles, gap=ROW, low=top, high=bottom - ROW)
    launched: list[float] = []
    for index, (group, label) in enumerate(zip(groups, labels, strict=True)):
        launched.append(clock.y(group[0].ready))
        beside = sum(abs(one - launched[-1]) < _MARK for one in launched[:-1])
        inside = [name for one in group for name in tensors[one.bucket]]
        yield f"<g>{tooltip(_describe(group, inside, forms))}"
        yield from _bar(group, clock, label, index, min(beside, 2))
        yield from _words(group, step, label)
        yield "</g>"


def _bar(group: Sequence[Transfer], clock: Clock, label: float, index: int, beside: int) -> Iterator[str]:
    """The bar of a group and its threads to the backward lane; ``beside`` others are launched at the same height."""
    colour = bucket_colour(group[0].bucket)
    ready, start, end = clock.y(group[0].ready), clock.y(group[0].start), clock.y(group[-1].end)
    height = max(start - end, 3.0)
    lane, line = BACKWARD - 14, f'<path stroke="{colour}" stroke-opacity=".5"'
    waits = ready - start > 1  # for the one before
    side = WIRE - 7 - 5 * (index % 5) if waits else WIRE
    yield f'{line} d="M{lane} {ready:.1f}H{side}"/>'
    yield f'{line} stroke-dasharray="1 4" d="M{lane} {end:.1f}H{WIRE}"/>'
    yield f'<path fill="{colour}" d="M{lane - 5 - 7 * beside} {ready + _MARK:.1f}h10l-5 -{_MARK}z"/>'  # launched
    yield f'<path stroke="{colour}" stroke-width="2" d="M{lane - 5} {end:.1f}h10"/>'  # over
    if waits:
        yield (
            f'<path fill="none" stroke="{colour}" stroke-width="1.5" stroke-dasharray="3 3" '
            f'd="M{side} {ready:.1f}V{start:.1f}H{WIRE}"/>'
        )
    yield rect(WIRE, start - height, 16, height, fill=colour)
    middle = start - height / 2
    yield f'<path stroke="{colour}" d="M{WIRE + 16} {middle:.1f}L{LABELS - 3} {label + ROW / 2:.1f}"/>'


def _words(group: Sequence[Transfer], step: Step, label: float) -> Iterator[str]:
    taken = sum(one.end - one.start for one in group)
    late = sum(one.end - max(one.start, min(step.computed, one.end)) for one in group)
    many = f"to {group[-1].bucket}: " if len(group) > 1 else ""
    hidden = "hidden" if late <= 0 else "exposed" if late >= taken else f"{seconds_text(late)} exposed"
    words = f"{many}{bytes_text(sum(one.nbytes for one in group))} · {seconds_text(taken)}, {hidden}"
    yield chip(LABELS, label, group[0].bucket)
    x = LABELS + 38
    yield text(x, label + 15, fit(words, WIDTH - 16 - x, 11), css="exposed" if late > 0 else "small")


def _describe(group: Sequence[Transfer], inside: Sequence[str], forms: Mapping[int, str]) -> str:
    first, last = group[0], group[-1]
    user = last.last.node["name"] if last.last is not None else None
    launch = f"complete after the backward of {user}" if user else "no operation uses its parameters"
    what = f"{count_text(len(inside), 'tensor')} from {inside[0]} to {inside[-1]}"
    when = f"on the wire from {seconds_text(first.start)} to {seconds_text(last.end)} of the step"
    names = ", ".join(dict.fromkeys(forms[one.bucket] for one in group if forms[one.bucket]))
    form = f" as {names}" if names else ""
    return f"{what}, {sum(one.nbytes for one in group):,} bytes{form}; {launch}; {when}"
