"""The strip on top of ``plan.svg``: one predicted step from left to right, computing above, the wire below."""

from __future__ import annotations

from collections.abc import Iterator

from autopar.view.palette import bucket_colour
from autopar.view.predict import Step
from autopar.view.svg import rect, text, text_width, tooltip
from autopar.view.theme import NAME, WIDTH
from autopar.view.units import seconds_text

__all__ = ["STRIP_HEIGHT", "draw_strip"]

STRIP_HEIGHT = 96
_LEFT, _RIGHT, _BAR = 112, WIDTH - 24, 22


def draw_strip(step: Step, top: float) -> Iterator[str]:
    """Two bars of time: forward and backward, and below them the all-reduces; red is what nothing hides."""
    whole = step.end or 1.0

    def x(seconds: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * seconds / whole

    upper, lower = top + 4, top + 4 + _BAR + 6
    if step.exposed > 0:
        yield rect(x(step.computed), top, _RIGHT - x(step.computed), 2 * _BAR + 14, css="late")
    yield text(NAME, upper + 15, "compute", css="head")
    yield text(NAME, lower + 15, "on the wire", css="head")
    for css, begin, end in (("forward", 0.0, step.turn), ("backward", step.turn, step.computed)):
        if end > begin:
            yield rect(x(begin), upper, x(end) - x(begin), _BAR, css=css)
            yield from _inside(x(begin), x(end), upper, f"{css} {seconds_text(end - begin)}", "inbar")
    labelled = drawn = 0.0  # of a thousand buckets those are left out that would be narrower than two pixels
    for one in step.transfers:
        if x(one.end) - drawn < 2:
            continue
        drawn = x(one.end)
        left, width = x(one.start), max(x(one.end) - x(one.start) - 1, 1.0)
        yield f"<g>{tooltip(f'bucket {one.bucket}: {seconds_text(one.start)} to {seconds_text(one.end)}')}"
        yield rect(left, lower, width, _BAR, fill=bucket_colour(one.bucket))
        number = str(one.bucket)
        if text_width(number, 11) + 8 <= width:
            yield from _inside(left, left + width, lower, number, "chip")
        elif left - labelled > text_width(number, 11) + 6:
            labelled = left
            yield text(left + width / 2, lower + _BAR + 12, number, css="quiet", anchor="middle")
        yield "</g>"
    axis = lower + _BAR + 18
    yield f'<path class="axis" d="M{_LEFT} {axis}H{_RIGHT}"/>'
    yield text(_LEFT, axis + 14, "0", css="quiet")
    whole_text = f"{seconds_text(step.end)} without loss and optimizer"
    yield text(_RIGHT, axis + 14, whole_text, css="quiet", anchor="end")
    if step.exposed > 0 and x(step.computed) - _LEFT > 60:
        words = f"backward ends {seconds_text(step.computed)}"
        if _RIGHT - x(step.computed) > text_width(words, 11) / 2 + 250:
            yield text(x(step.computed), axis + 14, words, css="quiet", anchor="middle")


def _inside(left: float, right: float, top: float, words: str, css: str) -> Iterator[str]:
    """Words in the middle of a bar that is long enough for them."""
    if text_width(words, 11) + 8 <= right - left:
        yield text((left + right) / 2, top + 15, words, css=css, anchor="middle")
