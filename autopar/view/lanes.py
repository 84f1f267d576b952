"""``plan.svg``: what happens on the wire, seen beside the model.

On top one predicted step from left to right. Below it a line for each module in the order of forward:
forward is read downwards, backward upwards, and beside backward stand the buckets at the height where
they travel. There is no layout engine: everything stands on a grid, so 5,000 nodes take milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from autopar.partitioner.rates import Rates
from autopar.view.counted import forward_flops_text, uncounted
from autopar.view.fold import fold
from autopar.view.lines import Labelled, Times, draw_lines, labelled, times_of
from autopar.view.operations import operations
from autopar.view.predict import Step, predict
from autopar.view.rows import ModuleRow, module_rows
from autopar.view.strip import STRIP_HEIGHT, draw_strip
from autopar.view.svg import fit, rect, safe, text
from autopar.view.theme import BACKWARD, CHIPS, FORWARD, NAME, PARAMS, ROW, STYLE, WIDTH, WIRE
from autopar.view.units import bytes_text, count_text, rates_text, seconds_text
from autopar.view.wire import Clock, draw_wire

__all__ = ["lanes_svg"]

_MOST_LINES = 36
_STRIP = 100  # where the strip begins
_HEADS = _STRIP + STRIP_HEIGHT + 26  # the baseline of the columns' names
_MOST_LATE = 66  # pixels for what travels after backward


def lanes_svg(document: Mapping[str, Any]) -> str:
    """The picture as SVG text, 1,280 pixels wide, light or dark as the viewer prefers.

    Args:
        document: see ``autopar.view.graph_json``.
    """
    run = operations(document)
    rows = module_rows(document, run)
    lines = labelled(fold(rows, most=_MOST_LINES) if rows else [], rows)
    step = predict(document, run)
    missing = uncounted(document)
    times = times_of(step)
    late = _late(step)
    top = _HEADS + 12 + late
    bottom = top + ROW * max(len(lines), 1)
    clock = _clock(lines, rows, times, step, top, late)
    body = [
        *_header(document, step, missing),
        *draw_strip(step, _STRIP),
        *_heads(),
        *_after_backward(step, top, late),
        *(
            f'<rect class="even" x="12" y="{top + s * ROW}" width="{WIDTH - 24}" height="{ROW}"/>'
            for s in range(0, len(lines), 2)
        ),
        *draw_wire(document, step, clock, top - late, bottom),
        *draw_lines(lines, rows, times, top),  # over the threads of the wire, so that no word is crossed out
        *_footer(document, step, missing, bottom, folded=any(one.line is None for one in lines)),
    ]
    height = bottom + 82
    return "\n".join(
        [
            # Never wider than its window, whatever shows it.
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'style="max-width:100%;height:auto" viewBox="0 0 {WIDTH} {height}" class="plan" role="img">',
            f"<title>{safe(str(document['model']))}: the {safe(document['strategy'])} plan</title>",
            f"<style>{STYLE}</style>",
            '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
            'patternTransform="rotate(45)"><line class="hatch" y2="6" stroke-width="2"/></pattern></defs>',
            '<rect class="page" width="100%" height="100%"/>',
            *body,
            "</svg>\n",
        ]
    )


def _late(step: Step) -> int:
    """Pixels for the time after backward: more for more, within bounds."""
    if step.exposed <= 0:
        return 0
    share = min(1.0, step.exposed / max(step.computed - step.turn, 1e-12))
    return round(ROW + (_MOST_LATE - ROW) * share)


def _clock(
    lines: Sequence[Labelled], rows: Sequence[ModuleRow], times: Times, step: Step, top: float, late: int
) -> Clock:
    """Backward climbs from the last line to the first; a block that is drawn once counts with all its repeats."""
    marks = [(step.turn, top + ROW * len(lines))]
    parts: dict[int, list[int]] = {}
    for slot, one in enumerate(lines):
        parts.setdefault(one.part, []).append(slot)
    for slots in reversed(parts.values()):
        members = [index for slot in slots for index in getattr(lines[slot].line, "members", ())]
        taken = sum(times.get(rows[index].path, (0.0, 0.0))[1] for index in members)
        marks.append((marks[-1][0] + taken, top + ROW * slots[0]))
    marks.append((max(step.end, marks[-1][0]), top - late))
    return Clock(tuple(marks))


def _header(document: Mapping[str, Any], step: Step, missing: Sequence[str]) -> Iterator[str]:
    known = document["world_size"]
    ranks = f" on each of {count_text(known, 'rank')}" if known and known > 1 else ""
    plan = document["plan"] or {"buckets": [], "options": {}}
    replicas, weight = plan["options"].get("replicas"), plan["options"].get("weight")
    yield text(
        NAME,
        34,
        fit(f"One training step of {document['model']}{ranks} ({document['strategy']})", 1200, 18),
        css="title",
    )
    whole = sum(bucket["nbytes"] for bucket in plan["buckets"])
    yield f'<text x="{NAME}" y="60" class="lead">{_lead(step, whole, assumed=not known)}</text>'
    facts = [
        count_text(len(document["after"]["nodes"]), "node"),
        forward_flops_text(sum(node["flops"] for node in document["after"]["nodes"]), missing),
        *([count_text(replicas, "replica")] if replicas else []),
        *([f"weighed by {weight}"] if weight else []),
        f"times predicted for {rates_text(Rates.from_json(document['rates']))}",
    ]
    yield text(NAME, 82, fit(" · ".join(facts), WIDTH - 48, 11), css="quiet")


def _lead(step: Step, whole: int, *, assumed: bool) -> str:
    """The whole picture in one sentence, as SVG content."""
    if not step.transfers:
        return "No gradient travels between processes."
    sent = sum(one.nbytes for one in step.transfers)
    size = f"{bytes_text(whole)} of gradients" + (f", sent as {bytes_text(sent)}," if sent != whole else "")
    who = count_text(step.ranks, "rank") + (" (assumed)" if assumed else "")
    what = f"Each step averages {size} over {who} in {count_text(len(step.transfers), 'all-reduce')}."
    hidden = seconds_text(max(step.travelling - step.exposed, 0.0))
    if step.exposed <= 0:
        return f"{what} Predicted: {hidden} on the wire, all of it hidden behind backward."
    late = f'<tspan class="exposed">{seconds_text(step.exposed)} exposed after it</tspan>'
    return f"{what} Predicted: {hidden} hidden behind backward, {late}."


def _heads() -> Iterator[str]:
    yield text(NAME, _HEADS, "module", css="head")
    yield text(PARAMS, _HEADS, "parameters", css="head", anchor="end")
    yield text(FORWARD, _HEADS, "forward ↓", css="head")
    yield text(BACKWARD, _HEADS, "backward ↑", css="head")
    yield text(CHIPS, _HEADS, "sent in bucket", css="head")
    yield text(WIRE, _HEADS, "on the wire ↑ beside the backward that hides it", css="head")


def _after_backward(step: Step, top: float, late: int) -> Iterator[str]:
    if not late:
        return
    yield rect(12, top - late, WIDTH - 24, late, css="late")
    words = f"after backward: {seconds_text(step.exposed)} exposed, nothing is left to compute that could hide it"
    yield text(NAME, top - late / 2 + 4, words, css="exposed")


def _footer(
    document: Mapping[str, Any], step: Step, missing: Sequence[str], bottom: float, *, folded: bool
) -> Iterator[str]:
    legend = "Bars are predicted time."
    if step.transfers:
        legend = (
            "▲ all gradients of a bucket are there, its all-reduce may start · dashes: it waits for the one before · "
            f"— it is over · red: exposed, nothing hides it. {legend}"
        )
    notes = []
    if folded:
        times = "\N{MULTIPLICATION SIGN} n"
        notes.append(f"{times}: drawn once; the height of an all-reduce beside it is the share of all n that are done.")
    if any(node["opaque"] for node in document["after"]["nodes"]):
        notes.append("Hatched: opaque, runs as plain PyTorch.")
    if any(node.get("region") for node in document["after"]["nodes"]):
        notes.append("↻: checkpointed, backward computes its forward again, which is in the bars.")
    if (document["plan"] or {"options": {}})["options"].get("replicas"):
        notes.append("Times are of one replica with the whole batch; copies between replicas are not predicted.")
    if missing:
        notes.append(f"FLOPs of {', '.join(missing)} are unknown, so the times predicted there are too short.")
    for index, note in enumerate([legend, " ".join(notes)]):
        yield text(NAME, bottom + 32 + 18 * index, fit(note, WIDTH - 48, 11), css="quiet")
