"""The pass that takes the partitioner's decision into the program."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from autopar.errors import PlanError
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


def test_defaults_are_distributed_data_parallel_s() -> None:
    """25 MiB, the first bucket 1 MiB."""
    assert (AssignBuckets().cap_mb, AssignBuckets().first_mb) == (25.0, 1.0)
