"""The trace: what Perfetto needs of each event, and the step that it shows."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from autopar.view.predict import predict
from autopar.view.trace import trace_events, trace_json
from tests.view.documents import chain


def _spans(trace: dict[str, Any], rank: int = 0) -> list[dict[str, Any]]:
    return [one for one in trace["traceEvents"] if one["ph"] == "X" and one["pid"] == rank]


def test_each_rank_is_a_process_with_two_threads() -> None:
    """Four ranks, all alike, each with its computing and its wire."""
    trace = json.loads(trace_json(chain(["a", "b"])))
    names = [one["args"]["name"] for one in trace["traceEvents"] if one["ph"] == "M"]
    assert names[:3] == ["predicted rank 0", "compute", "on the wire"]
    assert len(names) == 12
    assert [one["name"] for one in _spans(trace)] == [
        *("a: F.linear", "b: F.linear", "b: F.linear", "a: F.linear"),
        *("bucket 0", "bucket 1"),
    ]
    assert [{**one, "pid": 0} for one in _spans(trace, 3)] == _spans(trace)


def test_times_are_those_of_the_step() -> None:
    """Microseconds, back to back on the compute thread."""
    document = chain(["a", "b"])
    step = predict(document)
    spans = _spans(json.loads(trace_json(document)))
    assert [one["cat"] for one in spans] == ["forward"] * 2 + ["backward"] * 2 + ["all-reduce"] * 2
    for one, following in itertools.pairwise(spans[:4]):
        assert following["ts"] == pytest.approx(one["ts"] + one["dur"])
    assert spans[-1]["ts"] + spans[-1]["dur"] == pytest.approx(step.end * 1e6)


def test_launches_are_arrows_from_backward_to_the_wire() -> None:
    """Each begins within a span of the compute thread and ends at the begin of its all-reduce."""
    events = list(trace_events(predict(chain(["a", "b"])), process=0, name="rank"))
    begins = [one for one in events if one["ph"] == "s"]
    ends = {one["id"]: one for one in events if one["ph"] == "f"}
    spans = [one for one in events if one["ph"] == "X"]
    assert len(begins) == 2
    for begin in begins:
        assert any(one["tid"] == 0 and one["ts"] <= begin["ts"] <= one["ts"] + one["dur"] for one in spans)
        assert any(one["tid"] == 1 and one["ts"] == ends[begin["id"]]["ts"] for one in spans)


def test_a_thousand_ranks_do_not_fill_the_screen() -> None:
    """The first eight are drawn; the file says how many there are."""
    trace = json.loads(trace_json({**chain(["a"]), "world_size": 1000}))
    assert {one["pid"] for one in trace["traceEvents"]} == set(range(8))
    assert trace["otherData"]["ranks"] == 1000
