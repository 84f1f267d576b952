"""Reads of state become the first inputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.passes.programs import DDP, MODELS, compiled, ddp


@pytest.mark.parametrize("name", MODELS)
def test_lifted_program_computes_the_same(name: str) -> None:
    """Given the tensors that its names say, in their order."""
    cls, batch = MODELS[name]
    torch.manual_seed(0)
    program = compiled(cls(), DDP + ",lift-parameters", batch)
    model = program.model
    state = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    found = program.graph_module(*[state[name] for name in program.lifted], batch)
    expected = model(batch)
    leaves = expected.values() if isinstance(expected, dict) else [expected]
    assert all(torch.equal(one, other) for one, other in zip(found, leaves, strict=True))


def test_nothing_is_read_any_more() -> None:
    """But modules, which are no tensors."""
    program = compiled(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), DDP + ",lift-parameters", torch.ones(3, 4))
    assert [node.target for node in program.find("get_attr")] == ["1"]
    assert set(program.lifted) == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_inputs_of_the_program_come_last() -> None:
    """In their own order."""
    program = compiled(nn.Bilinear(2, 3, 4), DDP + ",lift-parameters", torch.ones(3, 2), torch.ones(3, 3))
    names = [node.name for node in program.find("placeholder")]
    assert names[-2:] == list(program.signature.inputs)
    assert len(names) == len(program.lifted) + 2


def test_plain_tensor_attributes_are_lifted() -> None:
    """Neither parameter nor buffer, but state all the same."""

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.scale = nn.Linear(4, 4), torch.full((4,), 2.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x) * self.scale

    assert "scale" in compiled(Plain(), DDP + ",lift-parameters", torch.ones(3, 4)).lifted


def test_program_before_stays_readable() -> None:
    """Lifting a snapshot leaves the program as it was."""
    program = ddp("mlp")
    before = program.code
    from autopar.passes.base import PassContext
    from autopar.passes.preserving.lift_parameters import LiftParameters

    LiftParameters().run(program.snapshot(), PassContext())
    assert program.code == before
    assert program.lifted == ()
