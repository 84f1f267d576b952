"""The predicted step as a trace in Chrome's format, which Perfetto and chrome://tracing open.

One process a rank, with a thread for what it computes and one for the wire. Measured ranks, where
there are some, are further processes of the same file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from autopar.partitioner.rates import Rates
from autopar.view.measured import Measured
from autopar.view.measured_trace import measured_events
from autopar.view.predict import Step, predict
from autopar.view.units import rates_text

__all__ = ["trace_events", "trace_json"]

_COMPUTE, _WIRE = 0, 1  # threads of a rank
_MOST_RANKS = 8  # all are alike; a hundred would only fill the screen
_MOST_EVENTS = 100_000  # beyond that fewer ranks are drawn, at least one


def trace_json(document: Mapping[str, Any], measured: Measured | None = None) -> str:
    """The trace as JSON text: one event a line.

    Args:
        document: see ``autopar.view.graph_json``.
        measured: steps to show beside the predicted one, which then begins with the typical one of them.
    """
    step = predict(document)
    spans = len(step.forward) + len(step.backward) + len(step.transfers)
    ranks = min(step.ranks, _MOST_RANKS, max(1, _MOST_EVENTS // max(spans, 1)))
    found = [
        event for rank in range(ranks) for event in trace_events(step, process=rank, name=f"predicted rank {rank}")
    ]
    if measured is not None:
        late = measured.typical().begin * 1e6
        found = [{**event, "ts": event["ts"] + late} if "ts" in event else event for event in found]
        found = [*measured_events(measured, first_process=_MOST_RANKS), *found]
    events = ",\n".join(map(json.dumps, found))
    about = {
        "model": document["model"],
        "strategy": document["strategy"],
        "ranks": step.ranks,
        "rates": rates_text(Rates.from_json(document["rates"])),
    }
    if measured is not None:
        about["beside step"] = measured.typical().number
    return f'{{"displayTimeUnit": "ms", "otherData": {json.dumps(about)}, "traceEvents": [\n{events}\n]}}\n'


def trace_events(step: Step, *, process: int, name: str) -> Iterator[dict[str, Any]]:
    """The events of one rank: names, then complete events in microseconds, then arrows from backward to wire.

    Args:
        step: what the rank does.
        process: number of the process in the trace.
        name: what it is called there.
    """
    yield _named("process_name", process, _COMPUTE, name)
    yield _named("thread_name", process, _COMPUTE, "compute")
    yield _named("thread_name", process, _WIRE, "on the wire")
    for phase, spans in (("forward", step.forward), ("backward", step.backward)):
        for span in spans:
            node = span.operation.node
            shown = {key: node[key] for key in ("module", "source", "flops", "bytes") if node[key]}
            where = {"pid": process, "tid": _COMPUTE, "ts": span.start * 1e6, "dur": (span.end - span.start) * 1e6}
            label = f"{node['module'] or node['name']}: {node['class'] or node['target']}"
            yield {"ph": "X", "cat": phase, "name": label, **where, "args": shown}
    for one in step.transfers:
        shown = {"bytes": one.nbytes, "complete at, µs": one.ready * 1e6}
        where = {"pid": process, "tid": _WIRE, "ts": one.start * 1e6, "dur": (one.end - one.start) * 1e6}
        yield {"ph": "X", "cat": "all-reduce", "name": f"bucket {one.bucket}", **where, "args": shown}
        arrow = {"cat": "launch", "name": "launch", "id": process * 1_000_000 + one.bucket, "pid": process}
        # An arrow binds to the span around its time, so it begins within the last operation, not at its end.
        yield {"ph": "s", **arrow, "tid": _COMPUTE, "ts": max(one.ready * 1e6 - 0.001, 0.0)}
        yield {"ph": "f", "bp": "e", **arrow, "tid": _WIRE, "ts": one.start * 1e6}


def _named(event: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": event, "pid": process, "tid": thread, "args": {"name": name}}
