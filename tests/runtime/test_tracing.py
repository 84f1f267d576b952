"""Measured steps: two real ranks, over both backends; what is measured nests, increases, and is what the plan says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import autopar
from autopar.attach import attachment_of
from autopar.errors import ModelError, UsageError
from autopar.runtime.engine import BucketEngine
from autopar.runtime.tracing import TRACE, TracingEngine
from autopar.view.measured import read_measured
from autopar.view.trace import trace_json
from tests.opaque import kept_whole
from tests.ranks import run_ranks
from tests.view.documents import chain

STEPS = 3


def train(backend: str) -> dict[str, Any]:
    """A few steps of a model with one opaque part, the second of them accumulated; what the engine was."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.Sequential(kept_whole(nn.Linear(32, 32))), nn.Linear(32, 4))
    model = autopar.parallelize(model, "ddp", bucket_cap_mb=0, backend=backend)
    for _ in range(STEPS):
        with autopar.no_sync(model):
            model(torch.randn(8, 16)).sum().backward()
        model.zero_grad()
        model(torch.randn(8, 16)).sum().backward()
    attachment = attachment_of(model)
    assert attachment is not None
    engine = attachment.executor.engine  # type: ignore[union-attr]
    plan = json.loads(attachment.compilation.plan.to_json())  # type: ignore[union-attr]
    autopar.unparallelize(model)
    return {"traced": isinstance(engine, TracingEngine), "class": type(engine).__name__, "plan": plan}


@pytest.fixture(scope="module", params=["torch", "shm"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A traced run of two ranks: its folder, and the plan."""
    folder = tmp_path_factory.mktemp(request.param)
    results = run_ranks(train, 2, request.param, timeout=110, environment={TRACE: str(folder)})
    assert all(result["traced"] for result in results)
    return folder, results[0]["plan"]


def test_every_step_has_its_parts_in_order(run: tuple[Path, dict[str, Any]]) -> None:
    """Forward, backward, wait; each bucket once, ready, sent, done; accumulated steps are not in it."""
    folder, plan = run
    measured = read_measured(folder)
    assert sorted(measured.ranks) == [0, 1]
    sizes = {bucket["index"]: bucket["nbytes"] for bucket in plan["buckets"]}
    assert {bucket["route"] for bucket in plan["buckets"]} == {"graph", "hook"}
    for steps in measured.ranks.values():
        assert [step.number for step in steps] == list(range(STEPS))
        ends = [-1e-9]
        for step in steps:
            times = [ends[-1], *step.forward, *step.backward, *step.wait, step.end]
            assert times == sorted(times)
            ends.append(step.end)
            assert {one.index: one.nbytes for one in step.buckets} == sizes
            assert len(step.buckets) == len(sizes)
            for one in step.buckets:
                assert step.backward[0] <= one.ready <= one.sent <= one.done <= step.end


def test_trace_is_valid(run: tuple[Path, dict[str, Any]]) -> None:
    """Spans of a thread nest; arrows lead from a span to a span; the predicted step stands beside a measured one."""
    measured = read_measured(run[0])
    trace = json.loads(trace_json(chain(["a", "b"]), measured))
    events = trace["traceEvents"]
    names = {one["args"]["name"] for one in events if one["name"] == "process_name"}
    assert {"measured rank 0", "measured rank 1", "predicted rank 0"} <= names
    threads: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for one in events:
        if one["ph"] == "X":
            assert one["dur"] >= 0
            threads.setdefault((one["pid"], one["tid"]), []).append((one["ts"], one["ts"] + one["dur"]))
    for spans in threads.values():
        around: list[float] = []
        for begin, end in sorted(spans, key=lambda span: (span[0], -span[1])):
            while around and around[-1] <= begin + 1e-6:
                around.pop()
            assert not around or end <= around[-1] + 1e-6
            around.append(end)
    starts = {one["id"]: one for one in events if one["ph"] == "s" and "." in str(one["id"])}
    ends = {one["id"]: one for one in events if one["ph"] == "f"}
    assert len(starts) == 2 * STEPS * len(measured.typical().buckets)
    assert all(starts[key]["ts"] <= ends[key]["ts"] for key in starts)
    predicted = min(one["ts"] for one in events if one["ph"] == "X" and one["pid"] == 0)
    assert predicted == pytest.approx(measured.typical().begin * 1e6)
    assert trace["otherData"]["beside step"] == measured.typical().number


def test_without_tracing_there_is_the_ordinary_engine() -> None:
    """Not a subclass, and no question asked at a step."""
    assert {result["class"] for result in run_ranks(train, 2, "torch", environment={TRACE: None})} == {"BucketEngine"}
    assert BucketEngine.__subclasses__() == [TracingEngine]


@pytest.mark.parametrize(
    ("text", "error", "fact"),
    [
        (None, UsageError, "holds no measured step"),
        ("{", ModelError, "cannot be read"),
        ("[]", ModelError, "no measurement"),
        ('{"format": "autopar-measured", "version": 2}', ModelError, "has version 2; this autopar reads 1"),
        ('{"format": "autopar-measured", "version": 1, "steps": [{}]}', ModelError, "is damaged"),
        ('{"format": "autopar-measured", "version": 1, "steps": [], "origin": 0}', ModelError, "has no steps"),
    ],
)
def test_bad_measurements(tmp_path: Path, text: str | None, error: type[Exception], fact: str) -> None:
    """One sentence with the file, and how to make a new one."""
    if text is not None:
        (tmp_path / "rank-0.json").write_text(text)
    with pytest.raises(error, match=rf"{fact}.*autopar run --trace"):
        read_measured(tmp_path)
