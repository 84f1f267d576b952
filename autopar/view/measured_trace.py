"""Measured steps as events of Chrome's trace format, one process a rank."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from autopar.view.measured import Measured, MeasuredStep

__all__ = ["measured_events", "shared_lines"]

_COMPUTE, _WIRE = 0, 1


def measured_events(measured: Measured, *, first_process: int) -> Iterator[dict[str, Any]]:
    """The events of all ranks: names, then spans that nest, in microseconds.

    A step holds forward, backward and the exposed wait. Buckets that are on their way together are
    on several lines of the wire; an arrow leads from where a bucket was ready to where it was sent.

    Args:
        measured: what was measured.
        first_process: number of the first rank's process in the trace.
    """
    for rank, steps in measured.ranks.items():
        process = first_process + rank
        yield _named("process_name", process, _COMPUTE, f"measured rank {rank}")
        yield _named("thread_name", process, _COMPUTE, "compute")
        lines = 0
        for step in steps:
            yield from _computing(step, process)
            used = shared_lines(step)
            for line in range(lines, max(used, default=-1) + 1):
                yield _named("thread_name", process, _WIRE + line, f"on the wire{f' {line + 1}' if line else ''}")
            lines = max(lines, max(used, default=-1) + 1)
            yield from _wire(step, process, used)


def _computing(step: MeasuredStep, process: int) -> Iterator[dict[str, Any]]:
    place = {"pid": process, "tid": _COMPUTE}
    wait = step.wait[1] - step.wait[0]
    about = {"exposed wait, µs": wait * 1e6, "bytes": sum(one.nbytes for one in step.buckets)}
    whole = _span(step.begin, step.end)
    yield {"ph": "X", "cat": "step", "name": f"step {step.number}", **place, **whole, "args": about}
    for name in ("forward", "backward"):
        yield {"ph": "X", "cat": name, "name": name, **place, **_span(*getattr(step, name))}
    yield {"ph": "X", "cat": "wait", "name": "exposed wait", **place, **_span(*step.wait)}


def _wire(step: MeasuredStep, process: int, lines: list[int]) -> Iterator[dict[str, Any]]:
    for one, line in zip(step.buckets, lines, strict=True):
        where = {"pid": process, "tid": _WIRE + line}
        about = {"bytes": one.nbytes, "step": step.number, "ready at, µs": one.ready * 1e6}
        span = {**where, **_span(one.sent, one.done)}
        yield {"ph": "X", "cat": "all-reduce", "name": f"bucket {one.index}", **span, "args": about}
        arrow = {"cat": "launch", "name": "launch", "id": f"{process}.{step.number}.{one.index}", "pid": process}
        yield {"ph": "s", **arrow, "tid": _COMPUTE, "ts": one.ready * 1e6}
        yield {"ph": "f", "bp": "e", **arrow, "tid": _WIRE + line, "ts": one.sent * 1e6}


def shared_lines(step: MeasuredStep) -> list[int]:
    """A line of the wire for each bucket, such that no two on one line are on their way together."""
    free: list[float] = []
    found = []
    for one in step.buckets:
        line = next((index for index, end in enumerate(free) if end <= one.sent), len(free))
        free[line : line + 1] = [max(one.sent, one.done)]
        found.append(line)
    return found


def _span(begin: float, end: float) -> dict[str, float]:
    return {"ts": begin * 1e6, "dur": max(end - begin, 0.0) * 1e6}


def _named(event: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": event, "pid": process, "tid": thread, "args": {"name": name}}
