"""A chart of a report: for each model one bar a column, as long as its step is beside the plain module's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from autopar.benchmarking.columns import Column
from autopar.view.svg import safe, text
from autopar.view.theme import STYLE

__all__ = ["chart_svg"]

_LEFT, _RIGHT, _ROW, _TITLE = 200, 900, 18, 30  # pixels: where bars begin and end at most, a line, a heading
_FILL = {"plain": "#9aa7b4", "reference": "#f2b671", "subject": "#8dbdea"}


def chart_svg(document: Mapping[str, Any], columns: Sequence[Column]) -> str:
    """The chart of what ``autopar.benchmarking.report.document`` returned, as SVG.

    Columns that were measured alone or compiled are left out: they have another plain module to be compared with.
    """
    shown = [column for column in columns if not column.alone and not column.compiled]
    models = document["models"]
    bars = [(one, column) for one in models for column in shown if column.name in one["step_ms"]]
    longest = max((_ratio(one, column.name, "high") for one, column in bars), default=1.0)
    scale = (_RIGHT - _LEFT) / longest
    lines: list[str] = []
    y = 64.0
    for one in models:
        lines.append(text(24, y + 20, f"{one['model']}: {one['about']}" if one["about"] else one["model"], css="head"))
        y += _TITLE
        for column in shown:
            if column.name in one["step_ms"]:
                lines += _bar(one, column, y, scale)
                y += _ROW
        y += 10
    where = document["machine"]
    facts = (
        f"{where['processor']}, {where['cores']} cores · torch {where['torch']}, Python {where['python']}, autopar "
        f"{where['autopar']} · {document['settings']['nproc']} ranks · median and quartiles of "
        f"{document['settings']['rounds']} rounds"
    )
    body = "\n".join(lines)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1080 {y + 30:.0f}" role="img">\n'
        f"<title>{safe('Training steps beside the plain module')}</title>\n<style>{STYLE}</style>\n"
        f'<rect class="page" width="1080" height="{y + 30:.0f}"/>\n'
        f"{text(24, 34, 'A training step, beside the plain module without communication', css='title')}\n"
        f"{text(24, 54, facts, css='quiet')}\n{body}\n</svg>\n"
    )


def _bar(one: Mapping[str, Any], column: Column, y: float, scale: float) -> Iterator[str]:
    ratio, low, high = (_ratio(one, column.name, part) for part in ("median", "low", "high"))
    yield text(_LEFT - 8, y + 12, column.title, anchor="end")
    yield (
        f'<rect x="{_LEFT}" y="{y + 2:.1f}" width="{ratio * scale:.1f}" height="{_ROW - 4}" rx="2" '
        f'fill="{_FILL[column.kind]}"/>'
    )
    middle = y + _ROW / 2
    yield f'<path class="axis" fill="none" d="M{_LEFT + low * scale:.1f} {middle:.1f}H{_LEFT + high * scale:.1f}"/>'
    label = f"{ratio:.2f} · {one['step_ms'][column.name]['median']:.1f} ms"
    yield text(_LEFT + high * scale + 8, y + 12, label, css="small")


def _ratio(one: Mapping[str, Any], column: str, part: str) -> float:
    """A column's time over the plain module's; for the plain module itself, its own spread."""
    if column in one["to_plain"]:
        return float(one["to_plain"][column][part])
    return float(one["step_ms"][column][part]) / float(one["step_ms"][column]["median"])
