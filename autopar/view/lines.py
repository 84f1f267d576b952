"""The lines of ``plan.svg``: one a module, with its parameters, its forward, its backward and its buckets."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from autopar.view.fold import Block, Line, range_label
from autopar.view.operations import ROOT
from autopar.view.predict import Step
from autopar.view.rows import ModuleRow, merged
from autopar.view.svg import chip, fit, rect, text, text_width, tooltip
from autopar.view.theme import BACKWARD, BAR, CHIPS, FORWARD, NAME, PARAMS, ROW
from autopar.view.units import bytes_text, count_text, seconds_text

__all__ = ["Labelled", "Times", "draw_lines", "labelled", "times_of"]

_LEAST_KIND = 60  # pixels under which a shortened kind says nothing

Times = Mapping[str, tuple[float, float]]  # module path to seconds of forward and of backward


@dataclass(frozen=True, slots=True)
class Labelled:
    """A line with its label, or the head of a block (``line`` is None).

    Attributes:
        depth: number of blocks around it.
        span: lines below a head that belong to it.
        part: index of the outermost line or block that it belongs to.
    """

    line: Line | None
    label: str
    depth: int
    span: int
    part: int


def labelled(parts: Sequence[Line | Block], rows: Sequence[ModuleRow]) -> list[Labelled]:
    """Everything that takes a line of the picture, in order."""
    return [one for part, item in enumerate(parts) for one in _labelled(item, rows, 0, part)]


def _labelled(item: Line | Block, rows: Sequence[ModuleRow], depth: int, part: int) -> Iterator[Labelled]:
    if isinstance(item, Line):
        yield Labelled(item, range_label([_label([rows[i].path for i in turn]) for turn in item.turns]), depth, 0, part)
        return
    inner = [one for piece in item.parts for one in _labelled(piece, rows, depth + 1, part)]
    yield Labelled(None, f"\N{MULTIPLICATION SIGN} {item.count}", depth, len(inner), part)
    yield from inner


def _label(paths: Sequence[str]) -> str:
    if len(paths) == 1:
        return paths[0] or ROOT
    levels = zip(*(path.split(".") for path in paths), strict=False)
    shared = ".".join(level[0] for level in itertools.takewhile(lambda level: len(set(level)) == 1, levels))
    return shared if shared else f"{paths[0] or ROOT} .. {paths[-1] or ROOT}"


def times_of(step: Step) -> Times:
    """Seconds that each module's own operations take."""
    found: dict[str, list[float]] = {}
    modules = [one.node["module"] for one in step.computing]
    for module, (start, end) in zip(modules, step.played.forward, strict=True):
        found.setdefault(module, [0.0, 0.0])[0] += end - start
    for place, start, end in step.played.backward:
        found[modules[place]][1] += end - start
    return {path: (forward, backward) for path, (forward, backward) in found.items()}


def draw_lines(lines: Sequence[Labelled], rows: Sequence[ModuleRow], times: Times, top: float) -> Iterator[str]:
    """All lines, the first at ``top``."""
    shown = [_seconds(rows, one.line.turns[-1], times) for one in lines if one.line is not None]
    most = max((max(pair) for pair in shown), default=0.0)
    seconds = iter(shown)
    for slot, one in enumerate(lines):
        y, x = top + slot * ROW, NAME + 12 * one.depth
        if one.line is None:
            yield text(x, y + 15, one.label, css="head", quiet="alike, drawn once; bars are of one")
            yield f'<path class="block" d="M{x + 3} {y + 20}V{y + ROW * (one.span + 1) - 3}h5"/>'
            continue
        row = merged([rows[index] for index in one.line.turns[-1]])
        yield f"<g>{tooltip(_describe(one.label, row))}"
        yield from _name(x, y, one.label, row)
        yield from _bars(y, row, next(seconds), most)
        yield from _chips(y, sorted({bucket for index in one.line.members for bucket in rows[index].buckets}))
        yield "</g>"


def _seconds(rows: Sequence[ModuleRow], members: Sequence[int], times: Times) -> tuple[float, float]:
    pairs = [times.get(rows[index].path, (0.0, 0.0)) for index in members]
    return sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)


def _name(x: float, y: float, label: str, row: ModuleRow) -> Iterator[str]:
    room = PARAMS - 64 - x
    shown = fit(label, room, 12)
    kind = row.kinds[0] if row.kinds else "not called"
    if len(row.kinds) > 1:
        kind = f"{kind} + {len(row.kinds) - 1} more"
    if row.opaque:
        kind = f"{kind} · opaque"
    if row.recomputed:
        kind = f"{kind} · ↻"
    left = room - text_width(shown, 12) - 8
    yield text(x, y + 15, shown, quiet=fit(kind, left, 11) if left >= _LEAST_KIND else "")
    if row.param_bytes:
        yield text(PARAMS, y + 15, bytes_text(row.param_bytes), css="small", anchor="end")


def _bars(y: float, row: ModuleRow, seconds: tuple[float, float], most: float) -> Iterator[str]:
    for x, css, taken in zip((FORWARD, BACKWARD), ("forward", "backward"), seconds, strict=True):
        if not taken:
            continue
        width = max(2.0, BAR * taken / most)
        yield rect(x, y + 5, width, 12, css=css)
        if row.opaque:
            width = max(width, 24)
            yield rect(x, y + 5, width, 12, css="opaque")
        yield text(x + width + 6, y + 15, seconds_text(taken), css="small over")


def _chips(y: float, buckets: Sequence[int]) -> Iterator[str]:
    shown = list(buckets[:3]) if len(buckets) <= 3 else list(buckets[:2])
    for place, bucket in enumerate(shown):
        yield chip(CHIPS + place * 33, y, bucket)
    if len(buckets) > len(shown):
        yield text(CHIPS + len(shown) * 33 + 2, y + 15, f"to {buckets[-1]}", css="quiet over")


def _describe(label: str, row: ModuleRow) -> str:
    again = ", computed again in backward" if row.recomputed else ""
    return (
        f"{label}: {count_text(row.count, 'operation')} ({', '.join(row.kinds) or 'not called'}){again}, "
        f"{row.flops:,} FLOPs, {row.param_bytes:,} bytes of parameters, {row.output_bytes:,} bytes of outputs"
    )
