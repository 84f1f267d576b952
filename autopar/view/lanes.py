"""``plan.svg``: what happens on the wire, seen beside the model.

Rows are modules in the order of forward; lanes are forward (read downwards), backward (upwards) and
the buckets on the wire. A module's coloured numbers say which buckets carry its gradients; a triangle
on the backward lane is where a bucket is complete and its all-reduce starts. There is no layout
engine: everything stands on a grid, so 5,000 nodes take milliseconds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from autopar.view.counted import forward_flops_text
from autopar.view.fold import Block, Line, fold, lines_of, range_label
from autopar.view.palette import bucket_colour
from autopar.view.rows import ModuleRow, launch_rows, merged, module_rows
from autopar.view.svg import fit, safe, text, tooltip
from autopar.view.units import bytes_text, count_text, flops_text
from autopar.view.wire import Message, messages, places

__all__ = ["lanes_svg"]

_MOST_LINES = 40
_ROW, _TOP, _BAR = 22, 104, 100  # pixels: height of a line, where the lines begin, the longest bar
_NAME, _FORWARD, _BACKWARD, _CHIPS, _WIRE, _WIDTH = 24, 300, 560, 736, 920, 1280

_STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", Arial, sans-serif; fill: #1d2733 }
  .title { font-size: 18px; font-weight: 600 } .head { font-weight: 600 } .small { font-size: 11px }
  .quiet { fill: #5b6875; font-size: 11px } .chip { fill: #fff; font-size: 10px; font-weight: 600 }
  .page { fill: #fff } .even { fill: #f4f6f8 } .block { fill: none; stroke: #9aa7b4 } .opaque { fill: url(#hatch) }
  .forward { fill: #7fb2e5 } .backward { fill: #f0b26b } .hatch { stroke: #8a97a4 } .exposed { fill: #b3261e }
  @media (prefers-color-scheme: dark) {
    text { fill: #e4e9ee } .quiet { fill: #9fabb7 } .chip { fill: #fff } .page { fill: #14191f }
    .even { fill: #1b222a } .block { stroke: #566473 } .forward { fill: #3f7fbf } .backward { fill: #b97a2d }
    .hatch { stroke: #6b7885 } .exposed { fill: #ff8a80 }
  }
""".strip()


def lanes_svg(document: Mapping[str, Any]) -> str:
    """The picture as SVG text, 1,280 pixels wide, light or dark as the viewer prefers.

    Args:
        document: see ``autopar.view.graph_json``.
    """
    rows = module_rows(document)
    parts = fold(rows, most=_MOST_LINES) if rows else []
    labelled = list(_labelled(parts, rows))
    lines = [line for line, _, _ in labelled if line is not None]
    slots = [slot for slot, (line, _, _) in enumerate(labelled) if line is not None]
    slot_of = {member: slots[index] for index, line in enumerate(lines) for member in line.members}
    launched = launch_rows(document, rows)
    sent = messages({bucket: slot_of[row] for bucket, row in launched.items()}, most=max(12, len(labelled)))
    height = _TOP + _ROW * max(len(labelled), len(sent), 1) + 64
    body = [
        *_header(document, rows),
        *(_stripe(slot) for slot in range(0, len(labelled), 2)),
        *_lines(labelled, rows),
        *_wire(document, rows, sent, launched, max(len(labelled), len(sent))),
        *_footer(document, height),
    ]
    title = f"{document['model']}: the {document['strategy']} plan"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
            f'viewBox="0 0 {_WIDTH} {height}" role="img">',
            f"<title>{safe(title)}</title>",
            f"<style>{_STYLE}</style>",
            '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
            'patternTransform="rotate(45)"><line class="hatch" y2="6" stroke-width="2"/></pattern></defs>',
            '<rect class="page" width="100%" height="100%"/>',
            *body,
            "</svg>\n",
        ]
    )


Labelled = tuple["Line | None", str, int]


def _labelled(parts: Sequence[Line | Block], rows: Sequence[ModuleRow], depth: int = 0) -> Iterator[Labelled]:
    """Every line with its label and depth; a block begins with a line of its own, which has no rows."""
    for part in parts:
        if isinstance(part, Line):
            yield part, range_label([_label([rows[i].path for i in turn]) for turn in part.turns]), depth
        else:
            yield None, f"\N{MULTIPLICATION SIGN} {part.count}", depth + len(lines_of(part.parts)) * 1000
            yield from _labelled(part.parts, rows, depth + 1)


def _label(paths: Sequence[str]) -> str:
    if len(paths) == 1:
        return paths[0] or "(root)"
    levels = zip(*(path.split(".") for path in paths), strict=False)
    shared = ".".join(level[0] for level in itertools.takewhile(lambda level: len(set(level)) == 1, levels))
    return shared if shared else f"{paths[0] or '(root)'} .. {paths[-1] or '(root)'}"


def _header(document: Mapping[str, Any], rows: Sequence[ModuleRow]) -> Iterator[str]:
    ranks = f", {count_text(document['world_size'], 'rank')}" if document.get("world_size") else ""
    plan = document["plan"] or {"buckets": [], "options": {}}
    replicas = plan["options"].get("replicas")
    facts = [
        count_text(len(document["after"]["nodes"]), "node"),
        forward_flops_text(document, sum(row.flops for row in rows)),
        count_text(len(plan["buckets"]), "bucket"),
        f"{bytes_text(sum(bucket['nbytes'] for bucket in plan['buckets']))} of gradients a step",
        *([count_text(replicas, "replica")] if replicas else []),
    ]
    yield text(_NAME, 34, fit(f"{document['model']}: {document['strategy']}{ranks}", 900, 18), css="title")
    yield text(_NAME, 56, " · ".join(facts), css="quiet")
    yield text(_NAME, _TOP - 14, "module", css="head")
    yield text(_FORWARD, _TOP - 14, "forward ↓", css="head")
    yield text(_BACKWARD, _TOP - 14, "backward ↑", css="head")
    yield text(_CHIPS, _TOP - 14, "buckets", css="head")
    yield text(_WIRE, _TOP - 14, "on the wire ↑", css="head")


def _stripe(slot: int) -> str:
    return f'<rect class="even" x="12" y="{_TOP + slot * _ROW}" width="{_WIRE - 36}" height="{_ROW}" rx="3"/>'


def _lines(labelled: Sequence[Labelled], rows: Sequence[ModuleRow]) -> Iterator[str]:
    shown_rows = [merged([rows[index] for index in line.turns[-1]]) for line, _, _ in labelled if line is not None]
    most = max((max(row.flops, row.backward_flops) for row in shown_rows), default=0)
    for slot, (line, label, depth) in enumerate(labelled):
        y = _TOP + slot * _ROW
        if line is None:
            span, depth = divmod(depth, 1000)
            x = _NAME + 12 * depth
            yield text(x, y + 15, label, css="head")
            yield text(x + 56, y + 15, "of these lines; bars are of one", css="quiet")
            bottom = y + _ROW * (span + 1) - 3
            yield f'<path class="block" d="M{x + 3} {y + 20}V{bottom}h5"/>'
            continue
        row = merged([rows[index] for index in line.turns[-1]])
        yield f"<g>{tooltip(_describe(label, row))}"
        x = _NAME + 12 * depth
        room = _FORWARD - 12 - x
        shown = fit(label, room, 12)
        yield text(x, y + 15, shown)
        yield from _kind_beside(x, y, shown, row, room)
        yield from _bars(y, row, most)
        yield from _chips(y, sorted({bucket for index in line.members for bucket in rows[index].buckets}))
        yield "</g>"


def _kind_beside(x: float, y: float, shown: str, row: ModuleRow, room: float) -> Iterator[str]:
    used = len(shown) * 12 * 0.62 + 8
    kind = (row.kinds[0] if row.kinds else "not called") + (f" +{len(row.kinds) - 1}" if len(row.kinds) > 1 else "")
    if used + len(kind) * 11 * 0.62 <= room:
        yield text(x + used, y + 15, kind, css="quiet")


def _bars(y: float, row: ModuleRow, most: int) -> Iterator[str]:
    size = bytes_text(row.param_bytes) if row.param_bytes else ""
    forward = " · ".join(filter(None, [flops_text(row.flops) if row.flops else "", size]))
    for x, css, flops, label in (
        (_FORWARD, "forward", row.flops, forward or "-"),
        (_BACKWARD, "backward", row.backward_flops, flops_text(row.backward_flops) if row.backward_flops else ""),
    ):
        width = max(2.0, _BAR * flops / most) if most else 2.0
        if css == "forward" or flops or row.buckets:
            yield f'<rect class="{css}" x="{x}" y="{y + 5}" width="{width:.1f}" height="12" rx="2"/>'
            if row.opaque:
                yield f'<rect class="opaque" x="{x}" y="{y + 5}" width="{max(width, 24):.1f}" height="12" rx="2"/>'
        yield text(x + _BAR + 8, y + 15, label, css="small")


def _chips(y: float, buckets: Sequence[int]) -> Iterator[str]:
    shown = list(buckets[:3]) if len(buckets) <= 3 else list(buckets[:2])
    for place, bucket in enumerate(shown):
        yield _chip(_CHIPS + place * 33, y, bucket)
    if len(buckets) > len(shown):
        yield text(_CHIPS + len(shown) * 33 + 2, y + 15, f"to {buckets[-1]}", css="quiet")


def _chip(x: float, y: float, bucket: int) -> str:
    return (
        f'<rect x="{x}" y="{y + 4}" width="30" height="14" rx="3" fill="{bucket_colour(bucket)}"/>'
        f"{text(x + 15, y + 14.5, str(bucket), css='chip', anchor='middle')}"
    )


def _wire(
    document: Mapping[str, Any],
    rows: Sequence[ModuleRow],
    sent: Sequence[Message],
    launched: Mapping[int, int],
    slots: int,
) -> Iterator[str]:
    if not sent:
        yield text(_WIRE, _TOP + 15, "nothing: no bucket in this plan", css="quiet")
        return
    buckets = {bucket["index"]: bucket for bucket in document["plan"]["buckets"]}
    most = max(sum(buckets[index]["nbytes"] for index in message.buckets) for message in sent)
    beside: dict[int, int] = {}  # triangles on one line stand side by side
    for message, slot in zip(sent, places([message.line for message in sent], slots), strict=True):
        inside = [buckets[index] for index in message.buckets]
        total = sum(bucket["nbytes"] for bucket in inside)
        colour = bucket_colour(message.buckets[0])
        y, source = _TOP + slot * _ROW, _TOP + message.line * _ROW + _ROW / 2
        start = _CHIPS + 132 + 11 * min(beside.setdefault(message.line, 0), 2)
        beside[message.line] += 1
        yield f"<g>{tooltip(_describe_message(inside))}"
        yield f'<path fill="{colour}" d="M{start - 12} {source + 4}h10l-5 -9z"/>'
        yield (
            f'<path fill="none" stroke="{colour}" stroke-width="1.5" d="M{start} {source}'
            f'C{start + 16} {source} {_WIRE - 24} {y + 11} {_WIRE - 3} {y + 11}"/>'
        )
        width = max(3.0, 90 * total / most)
        yield f'<rect x="{_WIRE + 36}" y="{y + 5}" width="{width:.1f}" height="12" rx="2" fill="{colour}"/>'
        yield _chip(_WIRE, y, message.buckets[0])
        words = f"{bytes_text(total)} · {count_text(sum(len(b['parameters']) for b in inside), 'tensor')}"
        if len(inside) > 1:
            words = f"to {message.buckets[-1]}: {words}"
        exposed = not any(row.backward_flops for row in rows[: launched[message.buckets[-1]]])
        yield text(_WIRE + 134, y + 15, fit(words, 215, 11), css="small exposed" if exposed else "small")
        yield "</g>"


def _footer(document: Mapping[str, Any], height: int) -> Iterator[str]:
    notes = [
        "Bars are FLOPs; backward is estimated: one forward for the gradient of the input, one for the parameters.",
        "▲ bucket complete, its all-reduce starts. Red: nothing is left to compute that could hide it.",
    ]
    if any(node["opaque"] for node in document["after"]["nodes"]):
        notes.append("Hatched: opaque, runs as plain PyTorch.")
    yield text(_NAME, height - 34, notes[0], css="quiet")
    yield text(_NAME, height - 16, " ".join(notes[1:]), css="quiet")


def _describe(label: str, row: ModuleRow) -> str:
    return (
        f"{label}: {count_text(row.count, 'operation')} ({', '.join(row.kinds) or 'not called'}), "
        f"{row.flops:,} FLOPs, {row.param_bytes:,} bytes of parameters, {row.output_bytes:,} bytes of outputs"
    )


def _describe_message(inside: Sequence[Mapping[str, Any]]) -> str:
    first, last = inside[0]["parameters"][0], inside[-1]["parameters"][-1]
    return f"from {first} to {last}, {inside[0]['dtype']}, {sum(b['nbytes'] for b in inside):,} bytes"
