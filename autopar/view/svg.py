"""Pieces of SVG: text that cannot break out of its place or of the markup."""

from __future__ import annotations

import re
from html import escape

from autopar.view.palette import bucket_colour

__all__ = ["chip", "fit", "rect", "safe", "text", "text_width", "tooltip"]

# Advance of a character in the widest usual sans-serif (DejaVu Sans, Verdana), in ems: measured as
# the mean over module paths. Narrower fonts leave some room, none overflows.
_EM = 0.62
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # by XML 1.0, section 2.2


def safe(value: str) -> str:
    """Text as XML character data or attribute value, without what XML 1.0 cannot hold.

    >>> safe('a<b & "c"')
    'a&lt;b &amp; &quot;c&quot;'
    """
    return escape(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", value))


def fit(value: str, width: float, size: float) -> str:
    """The text, shortened in its middle to ``width`` pixels at a font size of ``size`` pixels.

    >>> fit("encoder.layers.0.self_attn.out_proj", 120, 12)
    'enc…ttn.out_proj'
    """
    most = int(width / (_EM * size))
    if len(value) <= most:
        return value
    head = max((most - 1) // 4, 0)
    tail = max(most - 1 - head, 1)
    return f"{value[:head]}…{value[-tail:]}"


def text_width(value: str, size: float) -> float:
    """Pixels that a text takes at most in a usual font of ``size`` pixels."""
    return _EM * size * len(value)


def chip(x: float, y: float, bucket: int) -> str:
    """A bucket's number on its colour, on the line that begins at ``y``."""
    return (
        f'<rect x="{x:g}" y="{y + 4:.1f}" width="30" height="14" rx="3" fill="{bucket_colour(bucket)}"/>'
        f"{text(x + 15, y + 14.5, str(bucket), css='chip', anchor='middle')}"
    )


def rect(x: float, y: float, width: float, height: float, *, css: str = "", fill: str = "") -> str:
    """A rectangle with its upper left corner at ``(x, y)``; bars have slightly round corners."""
    look = f'class="{css}"' if css else f'fill="{fill}"'
    return f'<rect {look} x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2"/>'


def text(x: float, y: float, value: str, *, css: str = "", anchor: str = "", quiet: str = "") -> str:
    """A text element with its baseline at ``y``, and what stands behind it in smaller letters."""
    extra = f' class="{css}"' if css else ""
    extra += f' text-anchor="{anchor}"' if anchor else ""
    behind = f'<tspan class="quiet" dx="8">{safe(quiet)}</tspan>' if quiet else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{extra}>{safe(value)}{behind}</text>'


def tooltip(value: str) -> str:
    """What a reader sees who rests the pointer on the element that this stands in."""
    return f"<title>{safe(value)}</title>"
