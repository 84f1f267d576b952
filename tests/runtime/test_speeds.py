"""What is measured at the start, what the plan makes of it, and what is measured in the steps."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest
import torch
from torch import nn

import autopar
from autopar.attach import attachment_of
from autopar.errors import UsageError
from autopar.runtime.ddp import DDPExecutor
from autopar.runtime.speeds import BUDGET, measured_rates
from tests.runtime.pairs import Ranks


def _mlp() -> nn.Module:
    return nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(256, 256), nn.ReLU())))


def _trained(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    model = autopar.parallelize(_mlp(), "ddp", **options)
    batch = torch.randn(8, 256)
    before = torch.get_rng_state()
    for _ in range(2):
        model(batch).square().mean().backward()
        model.zero_grad()
    assert torch.equal(before, torch.get_rng_state()), "measuring drew random numbers"
    return model


def _measuring() -> dict[str, Any]:
    model = _trained()
    attachment = attachment_of(model)
    assert attachment is not None
    executor = attachment.executor
    assert isinstance(executor, DDPExecutor)
    collectives = executor.connections.start(hooked=False)  # those that the training made
    start = time.perf_counter()
    again = measured_rates(executor.group, collectives, torch.device("cpu"))
    took = time.perf_counter() - start
    forced = autopar.report(_trained(bucket_cap_mb=25))
    return {
        "report": json.loads(json.dumps(autopar.report(model))),
        "again": again.to_json(),
        "took": took,
        "forced": forced,
        "plan": [bucket.parameters for bucket in attachment.compilation.plan.buckets],  # type: ignore[union-attr]
        "rank": os.environ["RANK"],
    }


@pytest.mark.parametrize("backend", ["shm", "torch"])
def test_plan_rests_on_what_was_measured(ranks: Ranks, backend: str) -> None:
    """All ranks have rank 0's figures and plan, at no cost the second time; a given cap needs none."""
    one, other = ranks(_measuring, 2, environment={"AUTOPAR_BACKEND": backend})
    assert one["plan"] == other["plan"]
    assert one["again"] == other["again"]
    assert max(one["took"], other["took"]) < BUDGET
    for rank in (one, other):
        report = rank["report"]
        assert (report["version"], report["strategy"]) == (1, "ddp")
        assert report["rates"]["origin"] == "measured"
        assert report["rates"]["message"] == rank["again"]["message"] > 0
        assert 0 < report["predicted"]["computed_ms"] <= report["predicted"]["step_ms"]
        assert report["measured"]["steps"] == 2
        for bucket in report["buckets"]:
            assert 0 < bucket["measured"]["sent_ms"] < bucket["measured"]["arrived_ms"] <= report["measured"]["step_ms"]
            assert bucket["predicted"]["sent_ms"] <= bucket["predicted"]["arrived_ms"]
        forced = rank["forced"]
        assert (forced["rates"], forced["predicted"]) == (None, None)
        assert forced["measured"]["step_ms"] > 0


def test_report_needs_a_plan() -> None:
    """Neither a plain module nor one without a batch has anything to report; one process sends nothing."""
    with pytest.raises(UsageError, match=r"no plan for this Sequential.*Call autopar\.parallelize\(model\), then give"):
        autopar.report(_mlp())
    model = autopar.parallelize(_mlp(), "ddp")
    with pytest.raises(UsageError, match="no plan"):
        autopar.report(model)
    model(torch.randn(8, 256)).sum().backward()
    assert autopar.report(model)["measured"] is None
