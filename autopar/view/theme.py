"""How ``plan.svg`` looks: the columns that its parts share, and its colours on light and dark ground."""

from __future__ import annotations

__all__ = ["BACKWARD", "BAR", "CHIPS", "FORWARD", "LABELS", "NAME", "PARAMS", "ROW", "STYLE", "WIDTH", "WIRE"]

WIDTH, ROW, BAR = 1280, 22, 120  # pixels: the picture, a line, the longest bar
NAME, PARAMS, FORWARD, BACKWARD, CHIPS, WIRE, LABELS = (
    24,
    352,
    376,
    552,
    752,
    880,
    926,
)  # left edges; PARAMS is a right one

STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", Arial, sans-serif; fill: #1d2733 }
  .title { font-size: 18px; font-weight: 600 } .lead { font-size: 14px } .head { font-weight: 600 }
  .small { font-size: 11px } .quiet { fill: #5b6875; font-size: 11px; font-weight: 400 }
  .page { fill: #fff } .plan { background: #fff } .even { fill: #f4f6f8 }
  .chip, .inbar { font-size: 10px; font-weight: 600; fill: #fff } .inbar { font-size: 11px; fill: #10202e }
  .forward { fill: #8dbdea } .backward { fill: #f2b671 } .opaque { fill: url(#hatch) } .hatch { stroke: #5d6a77 }
  .over { paint-order: stroke; stroke: #fff; stroke-width: 3px; stroke-linejoin: round }
  .block { fill: none; stroke: #9aa7b4 } .late { fill: #fbe4e1 } .exposed { font-size: 11px; fill: #b3261e }
  .lead .exposed { font-size: 14px; font-weight: 600 } .axis { stroke: #9aa7b4 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e4e9ee } .quiet { fill: #9fabb7 } .chip { fill: #fff } .inbar { fill: #fff }
    .page { fill: #14191f } .plan { background: #14191f }
    .even { fill: #1b222a } .block, .axis { stroke: #566473 } .forward { fill: #3f7fbf } .backward { fill: #a8691c }
    .over { stroke: #14191f } .hatch { stroke: #c3ccd6 } .late { fill: #3a1f20 } .exposed { fill: #ff8a80 }
  }
""".strip()
