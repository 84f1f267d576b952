"""The pass ``replicate``: the graph it makes, and how it decides on the outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autopar import replica_ops
from autopar.capture.ladder import capture
from autopar.compilation import Compilation, compile_program
from autopar.errors import ModelError, OptionError
from autopar.partitioner.plan import Plan
from autopar.passes.base import PassContext
from autopar.passes.preserving.replicate import Replicate
from autopar.program import Program, info
from autopar.strategies import DataParallel


class Head(nn.Module):
    """A linear layer whose output goes through a function."""

    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.linear, self.function = nn.Linear(3, 4), function

    def forward(self, x: torch.Tensor) -> Any:
        """x: (N, 3)."""
        return self.function(self.linear(x))


def _compiled(model: nn.Module, *args: Any, **options: Any) -> Compilation:
    return compile_program(model, args, {}, DataParallel(**{"replicas": 2, **options}))


def _replicated(model: nn.Module, *args: Any, **options: Any) -> Program:
    return _compiled(model, *args, **options).program


def _combine(function: Callable[[torch.Tensor], Any], size: int = 6) -> tuple[str, ...]:
    torch.manual_seed(0)
    return _compiled(Head(function), torch.randn(size, 3)).plan.combine


def test_the_program_shows_every_step_of_the_replication() -> None:
    """Scatter, replicate, parallel_apply and gather are nodes, in this order."""
    program = _replicated(nn.Linear(3, 4), torch.randn(6, 3))
    targets = [node.target for node in program.find("call_function")][:4]
    assert targets == [
        replica_ops.scatter, replica_ops.replicate, replica_ops.parallel_apply, replica_ops.gather,
    ]  # fmt: skip
    assert "replicas = 2" in program.code
    assert "combine = ('concat',)" in program.code


def test_parameters_are_the_first_inputs_of_the_replica() -> None:
    """The nested graph reads no state: what it needs flows in."""
    program = _replicated(nn.Linear(3, 4), torch.randn(6, 3))
    replica = program.graph_module.replica
    assert [node.name for node in replica.graph.find_nodes(op="placeholder")] == ["weight_", "bias_", "input_1"]
    assert not replica.graph.find_nodes(op="get_attr")


def test_nodes_say_in_how_many_replicas_they_run() -> None:
    """In the nested graph and for the four nodes."""
    program = _replicated(nn.Linear(3, 4), torch.randn(6, 3), replicas=3)
    assert {info(node).replica for node in program.graph_module.replica.graph.nodes} == {3}
    assert {info(node).replica for node in program.find("call_function")} == {3}


def test_the_printed_program_runs() -> None:
    """The graph module itself gives what the model gives, without a runtime."""
    model, x = nn.Linear(3, 4), torch.randn(5, 3)
    (output,) = _replicated(model, x).graph_module(x)
    torch.testing.assert_close(output, model(x))


def test_the_plan_is_complete() -> None:
    """Parameters, combine rules and options; it round-trips."""
    plan = _compiled(nn.Linear(3, 4), torch.randn(6, 3)).plan
    assert [spec.name for spec in plan.parameters] == ["weight", "bias"]
    assert (plan.strategy, plan.buckets, plan.combine) == ("data_parallel", (), ("concat",))
    expected = {"replicas": 2, "devices": None, "dim": 0, "gather": "exact", "shared": []}
    assert plan.options == expected
    assert Plan.from_json(plan.to_json()) == plan


def test_a_name_of_the_model_is_not_taken() -> None:
    """A model may have a submodule called ``replica``."""
    model = nn.Sequential()
    model.add_module("replica", nn.Linear(3, 4))
    x = torch.randn(6, 3)
    (output,) = _replicated(model, x).graph_module(x)
    torch.testing.assert_close(output, model(x))


@pytest.mark.parametrize(
    ("function", "rules"),
    [
        (lambda h: h, ("concat",)),
        (lambda h: h.mean(), ("mean",)),
        (lambda h: h.sum(), ("sum",)),
        (lambda h: h.mean(0), ("mean",)),
        (lambda h: h.sum(0), ("sum",)),
        (lambda h: (h > 0).sum(), ("sum",)),
        (lambda h: (h.relu().sum(), h.softmax(1), {"loss": h.square().mean()}), ("sum", "concat", "mean")),
        (lambda h: F.dropout(h, 0.5, training=True), ("concat",)),
        (lambda h: h.double().logsumexp(1).mean(), ("mean",)),
    ],
)
def test_how_an_output_is_put_together(function: Callable[[torch.Tensor], Any], rules: tuple[str, ...]) -> None:
    """By comparing the whole batch with its parts, also for uneven parts."""
    assert _combine(function) == rules
    assert _combine(function, size=5) == rules


def test_a_batch_of_one_is_enough_to_decide() -> None:
    """It is doubled, so that a sum is told from a mean."""
    assert _combine(lambda h: (h, h.sum(), h.mean()), size=1) == ("concat", "sum", "mean")


@pytest.mark.parametrize(
    "function",
    [
        lambda h: h - h.mean(0),
        lambda h: h @ h.t() @ h,
        lambda h: h.flip(0),
        lambda h: h.std(),
        lambda h: h.square().mean().sqrt(),
        lambda h: h.max(),
    ],
)
def test_an_output_that_mixes_samples_is_refused(function: Callable[[torch.Tensor], Any]) -> None:
    """The error names the output and the way out."""
    with pytest.raises(ModelError, match=r"Output 0 of Head mixes samples .*'ddp'.*gather='torch'"):
        _combine(function)


def test_an_output_whose_shape_fits_no_rule_is_refused() -> None:
    """A Gram matrix of the batch grows with its square."""
    with pytest.raises(ModelError, match=r"Output 1 of Head has the shape \[6, 6\] .* \[\[3, 3\], \[3, 3\]\]"):
        _combine(lambda h: (h, h @ h.t()))


def test_a_model_that_bakes_in_its_batch_size_is_refused() -> None:
    """With what it said about the smaller batch."""
    with pytest.raises(ModelError, match=r"Head cannot run on a part of its batch \(sizes 3, 3\).*x.shape"):
        _combine(lambda h: h.view(6, 2, 2))


def test_torch_gather_concatenates_without_asking() -> None:
    """Also what mixes samples."""
    model, x = Head(lambda h: (h - h.mean(0), h.sum())), torch.randn(6, 3)
    assert _compiled(model, x, gather="torch").plan.combine == ("concat", "concat")


def test_inputs_of_another_size_are_shared() -> None:
    """A table and a scalar go to each replica whole; the plan says which inputs do."""

    class Lookup(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, table: torch.Tensor, index: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
            return table[index] * self.scale * factor

    model, table, index = Lookup(), torch.randn(9, 3), torch.tensor([0, 3, 8, 4])
    compiled = _compiled(model, table, index, torch.tensor(2.0))
    assert compiled.plan.options["shared"] == [0, 2]
    (output,) = compiled.program.graph_module(table, index, torch.tensor(2.0))
    torch.testing.assert_close(output, model(table, index, torch.tensor(2.0)))


def test_an_output_that_is_zero_on_the_example_is_said_to_be_a_guess() -> None:
    """Mean and sum of zeros agree: a remark says which was taken."""
    compiled = _compiled(Head(lambda h: (h * 0).sum()), torch.randn(6, 3))
    assert compiled.plan.combine == ("mean",)
    assert any("zero on the example" in remark.message for remark in compiled.remarks if remark.kind == "missed")


def test_a_random_output_is_said_to_be_a_guess() -> None:
    """The nearest rule is taken: here the sum."""
    compiled = _compiled(Head(lambda h: (h + 0.01 * torch.randn_like(h)).sum()), torch.ones(6, 3))
    assert compiled.plan.combine == ("sum",)
    assert any("is random" in remark.message for remark in compiled.remarks)


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_norm_that_trains_is_remarked(training: bool) -> None:
    """The parts are not normalised as the whole would be; in eval mode they are."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).train(training)
    found = [r for r in _compiled(model, torch.randn(6, 3)).remarks if "its own part of the batch" in r.message]
    assert [remark.message.partition(" in ")[2].partition(";")[0] for remark in found] == ["1 (BatchNorm1d)"] * training


def test_probing_leaves_the_model_as_it_was() -> None:
    """Buffers, flags and the random stream."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout())
    model[2].eval()
    x, before = torch.randn(6, 3), {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    _compiled(model, x)
    assert [module.training for module in model.modules()] == [True, True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_one_replica_changes_nothing() -> None:
    """The program stays as it is, with a plan."""
    compiled = _compiled(nn.Linear(3, 4), torch.randn(6, 3), replicas=1)
    assert not list(compiled.program.find("call_function", replica_ops.scatter))
    assert compiled.plan.options["replicas"] == 1


def test_a_plan_of_the_same_graph_is_followed() -> None:
    """Its rules hold, without another probe."""
    program = capture(Head(lambda h: h.sum()), (torch.randn(6, 3),))
    plan = Replicate(replicas=2).run(program, PassContext()).program.plan
    assert plan is not None
    changed = dataclasses.replace(plan, combine=("mean",))
    followed = Replicate(replicas=2).run(program, PassContext(plan=changed)).program
    assert followed.plan == changed
    assert "combine = ('mean',)" in followed.code


def test_a_plan_of_another_graph_is_not_followed() -> None:
    """Another kind of call returns other things: its rules are found anew."""
    model = Head(lambda h: h.sum())
    plan = Replicate(replicas=2).run(capture(model, (torch.randn(6, 3),)), PassContext()).program.plan
    model.function = lambda h: h
    other = Replicate(replicas=2).run(capture(model, (torch.randn(6, 3),)), PassContext(plan=plan)).program
    assert other.plan is not None
    assert other.plan.combine == ("concat",)


def test_bad_options_are_refused() -> None:
    """As the strategy refuses them."""
    for options in ({"replicas": 0}, {"dim": -1}, {"gather": "all"}):
        with pytest.raises(OptionError):
            Replicate(**options)  # type: ignore[arg-type]


def test_a_model_away_from_the_first_device_is_refused() -> None:
    """Its parameters live on the first device; the tensor that does not is named."""
    with pytest.raises(ModelError, match=r"first replica's device, cuda:0: 'weight' is on cpu"):
        _compiled(nn.Linear(3, 4), torch.randn(6, 3), replicas=None, devices=["cuda:0", "cuda:1"])
