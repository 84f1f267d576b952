"""The pass that takes the partitioner's decision into the program."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from autopar.errors import PlanError
from autopar.partitioner.plan import Plan
from autopar.partitioner.rates import Rates
from autopar.passes.base import PassContext
from autopar.passes.preserving.bucket import AssignBuckets
from tests.passes.programs import MLP, Unused, compiled

PIPELINE = "inline-modules,shapes,backward-order,bucket"


def test_plan_holds_the_decision() -> None:
    """Strategy, parameters, buckets, and the digest of the graph."""
    program = compiled(MLP(), PIPELINE, torch.ones(3, 4), strategy="mine", options={"a": 1})
    plan = program.plan
    assert plan is not None
    assert (plan.strategy, plan.model, plan.options) == ("mine", "MLP", {"a": 1})
    assert [spec.name for spec in plan.parameters] == [name for name, _ in MLP().named_parameters()]
    assert [bucket.parameters for bucket in plan.buckets] == [program.ready_order]
    assert plan.program == program.digest()
    assert "6 parameters travel in 1 buckets, 520 bytes a step" in program.remarks[-1].message


def test_caps_are_in_mib() -> None:
    """0 is one parameter a bucket; the first cap is never above the other."""
    program = compiled(MLP(), PIPELINE + "{cap_mb=0}", torch.ones(3, 4))
    assert program.plan is not None
    assert [len(bucket.parameters) for bucket in program.plan.buckets] == [1] * 6
    program = compiled(MLP(), PIPELINE + f"{{cap_mb={100 / 2**20},first_mb=1}}", torch.ones(3, 4))
    assert program.plan is not None
    assert len(program.plan.buckets) > 1


def test_parameters_without_a_path_are_local() -> None:
    """With the reason."""
    plan = compiled(Unused(), PIPELINE, torch.ones(3, 4)).plan
    assert plan is not None
    assert {local.name.split(".")[0] for local in plan.local} == {"dropped", "cut", "never"}
    assert plan.local[0].reason == "no path leads from it to an output"


def test_written_buffers_are_planned() -> None:
    """Those of batch norms and of opaque modules, and not constants."""

    class Buffers(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.InstanceNorm1d(4, track_running_stats=True))
            self.register_buffer("constant", torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * self.constant

    plan = compiled(Buffers(), PIPELINE, torch.ones(2, 4, 4)).plan
    assert plan is not None
    assert {name.split(".")[0] for name in plan.buffers} == {"1", "2"}


def test_given_plan_is_adopted() -> None:
    """Nothing is solved again."""
    given = compiled(MLP(), PIPELINE + "{cap_mb=0}", torch.ones(3, 4)).plan
    adopted = compiled(MLP(), PIPELINE, torch.ones(3, 4), plan=given).plan
    assert adopted is given


def test_plan_of_another_model_is_refused() -> None:
    """Before the graph is touched."""
    given = compiled(MLP(), PIPELINE, torch.ones(3, 4)).plan
    assert given is not None
    wrong = dataclasses.replace(given, parameters=given.parameters[:-1])
    with pytest.raises(PlanError, match=r"parameter 'third\.bias' is in the model but not the plan"):
        compiled(MLP(), PIPELINE, torch.ones(3, 4), plan=wrong)


def _with_rates(**changes: Any) -> Plan:
    figures = {"operation": 1.0, "message": 0.1, "link": 100.0, "origin": "given", **changes}
    rates = dataclasses.replace(Rates.assumed("cpu"), **figures)
    plan = compiled(MLP(), PIPELINE, torch.ones(3, 4), rates=rates, world_size=2).plan
    assert plan is not None
    return plan


def test_cost_model_decides_by_what_a_message_costs() -> None:
    """Where an operation takes a second: short messages travel apart, long ones together, and it says when."""
    assert [len(bucket.parameters) for bucket in _with_rates().buckets] == [2, 2, 2]
    assert len(_with_rates(message=10.0).buckets) == 1
    prediction = _with_rates().prediction
    assert prediction is not None
    # Five operations forward; backward takes two for a layer but the first, and one for what is between.
    assert [round(travel.end, 1) for travel in prediction.buckets] == [7.8, 13.0, 14.7]
    assert round(prediction.end, 1) == 14.7


def test_without_figures_of_its_own_buckets_are_distributed_data_parallel_s() -> None:
    """25 MiB, the first 1 MiB, whatever a message is assumed to take."""
    assert len(_with_rates(origin="assumed").buckets) == 1
    assert (AssignBuckets().cap_mb, AssignBuckets().first_mb) == (None, 1.0)


def test_measured_rates_are_fitted_to_a_step_of_the_program() -> None:
    """The prediction's computing takes as long as the step that the gate saw."""
    program = compiled(MLP(), PIPELINE.removesuffix(",bucket"), torch.ones(3, 4))
    rates = dataclasses.replace(Rates.assumed("cpu"), origin="measured")
    assert program.seconds > 0
    result = AssignBuckets().run(program, PassContext(rates=rates, world_size=2)).program
    assert result.plan is not None
    assert result.plan.prediction is not None
    assert result.plan.prediction.computed == pytest.approx(program.seconds)
