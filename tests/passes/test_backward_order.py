"""The predicted order of gradients against autograd's own."""

from __future__ import annotations

from itertools import groupby

import pytest
import torch
from torch import nn

from autopar.capture.ladder import capture
from autopar.compat import tree_flatten
from autopar.passes.base import PassContext
from autopar.passes.dataflow import model_specs, parameter_specs
from autopar.passes.pipeline import build, parse
from autopar.passes.runner import run_pipeline
from autopar.program import Program
from tests.opaque import kept_whole
from tests.passes.programs import MLP, MODELS, Branches, Recurrent, Tied, Unused, compiled

ORDER = "inline-modules,shapes,backward-order"


def arrivals(model: nn.Module, batch: torch.Tensor) -> list[str]:
    """Parameters in the order in which one backward really completes them."""
    order: list[str] = []
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: order.append(name))
    sum(leaf.sum() for leaf in tree_flatten(model(batch))[0]).backward()
    return order


def played(model: nn.Module, pipeline: str, batch: torch.Tensor) -> Program:
    """The program of a capture that has run no backward."""
    return run_pipeline(capture(model, (batch,), gate=False), build(parse(pipeline)), PassContext())[0]


def modules(order: list[str]) -> list[str]:
    """The order of the modules: which of its parameters an operation hands out first is its own affair."""
    return [module for module, _ in groupby(order, key=lambda name: name.rpartition(".")[0])]


@pytest.mark.parametrize("pipeline", [ORDER, "inline-modules,backward-order"], ids=["shapes", "no-shapes"])
@pytest.mark.parametrize("name", [name for name in MODELS if name != "dtype"])
def test_order_is_autograd_s(name: str, pipeline: str) -> None:
    """For chains, residuals, branches, shared and tied weights, opaque calls, in-place writes."""
    cls, batch = MODELS[name]
    found = played(cls(), pipeline, batch).ready_order
    real = arrivals(cls(), batch)
    assert sorted(found) == sorted(real)
    assert modules(list(found)) == modules(real)


def test_reads_of_sizes_and_dtypes_delay_nothing() -> None:
    """Once ``shapes`` has seen that they are no tensors."""
    cls, batch = MODELS["dtype"]
    found = played(cls(), ORDER, batch).ready_order
    assert modules(list(found)) == modules(arrivals(cls(), batch))


def test_frozen_parameters_are_not_in_the_order() -> None:
    """They get no gradient."""
    model = MLP()
    model.second.requires_grad_(False)
    found = compiled(model, ORDER, torch.ones(3, 4)).ready_order
    assert modules(list(found)) == ["third", "first"]


def test_parameters_without_a_path_are_said() -> None:
    """Dropped results, results behind a detach, and modules that are never called."""
    program = compiled(Unused(), ORDER, torch.ones(3, 4))
    assert modules(list(program.ready_order)) == ["used"]
    said = [remark for remark in program.remarks if "gets no gradient" in remark.message]
    assert [remark.module_path for remark in said] == ["dropped", "dropped", "cut", "cut", "never", "never"]
    assert said[0].nbytes == 64
    assert "requires_grad_(False)" in said[0].mend


def test_opaque_root_is_in_the_order_of_its_eager_step() -> None:
    """All parameters belong to one call, but one backward has been seen."""

    class Opaque(MLP):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) if x.sum() > 0 else x

    found = compiled(Opaque(), ORDER, torch.ones(3, 4)).ready_order
    assert modules(list(found)) == ["third", "second", "first"]


def test_specs_of_a_program() -> None:
    """Registration order, canonical names, and the route by which gradients are gathered."""
    batch = torch.ones(3, 4)
    specs = {spec.name: spec for spec in parameter_specs(compiled(Recurrent(), "inline-modules", batch))}
    assert list(specs) == [name for name, _ in Recurrent().named_parameters()]
    assert {name for name, spec in specs.items() if spec.route == "hook"} == {n for n in specs if n.startswith("lstm")}
    assert specs["first.weight"].shape == (4, 4)


def test_parameter_that_an_opaque_call_shares_takes_the_hook() -> None:
    """Its gradient is complete only after both uses."""

    class Sharing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.fc = kept_whole(nn.GRUCell(4, 4)), nn.Linear(4, 12, bias=False)
            self.fc.weight = self.cell.weight_ih

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.cell(x))

    specs = parameter_specs(compiled(Sharing(), "inline-modules", torch.ones(3, 4)))
    assert {spec.name: spec.route for spec in specs}["cell.weight_ih"] == "hook"
    assert [spec.name for spec in specs].count("fc.weight") == 0


def test_opaque_root_takes_hooks_for_everything() -> None:
    """There is no edge to put a node on."""

    class Result:
        pass

    class Opaque(Branches):
        def forward(self, x: torch.Tensor) -> Result:  # type: ignore[override]
            super().forward(x)
            return Result()

    specs = parameter_specs(capture(Opaque(), (torch.ones(3, 4),)))
    assert {spec.route for spec in specs} == {"hook"}


def test_sparse_embeddings() -> None:
    """Their gradients have another layout; hooks gather them."""
    (spec,) = model_specs(nn.Embedding(5, 3, sparse=True))
    assert (spec.layout, spec.route, spec.key) == ("sparse", "hook", ("float32", "cpu", "sparse", "hook"))


def test_tied_weights_are_one_spec() -> None:
    """Under the first name."""
    assert model_specs(Tied())[0].name == "embed.weight"
    assert "head.weight" not in [spec.name for spec in model_specs(Tied())]


def test_order_of_the_eager_step_is_taken() -> None:
    """An opaque region's parameters come as they did in the gate's backward, and not in registration order."""
    model, batch = nn.Sequential(kept_whole(Backwards()), nn.Linear(4, 2)), torch.ones(3, 4)
    found = list(compiled(model, ORDER, batch).ready_order)
    assert modules(found) == ["1", "0.first", "0.last"]
    assert found == arrivals(model, batch)


def test_without_a_gate_the_order_is_played() -> None:
    """No backward has run then."""
    program = played(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), ORDER, torch.ones(3, 4))
    assert program.arrivals == ()
    assert program.ready_order == ("1.bias", "1.weight", "0.bias", "0.weight")


class Backwards(nn.Module):
    """Uses its layers in another order than it registers them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The first one last."""
        return self.first(self.last(x).tanh())
