"""Questions about the values of inputs are asked again at each call; others keep a module whole."""

# ruff: noqa: D102 - a forward is what its class says

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import autopar
from autopar.attach import attachment_of
from autopar.capture.ladder import capture
from tests.capture.models import Part, Trunk, opaque_paths, x


class Masked(nn.Module):
    """Leaves a mask out where it masks nothing, as transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if mask.all():
            return self.fc(x)
        return self.other(x) * mask


def test_each_answer_has_its_graph() -> None:
    """Values and gradients are those of the branch that eager takes."""
    plain, model = Masked(), autopar.parallelize(Masked(), "ddp")
    model.load_state_dict(plain.state_dict())
    some = torch.tensor([1.0, 0.0, 1.0, 1.0])
    for mask in (torch.ones(4), some, torch.ones(4), some):
        assert torch.equal(model(x(), mask), plain(x(), mask))
    attachment = attachment_of(model)
    assert attachment is not None
    answers = [entry.captured.guards.answers for entry in attachment._entries if entry.captured is not None]
    assert answers == [(True,), (False,)]


def test_a_parameter_of_the_other_branch_gets_its_gradient() -> None:
    """It is not declared to be without one."""
    model = autopar.parallelize(Masked(), "ddp")
    model(x(), torch.ones(4)).sum().backward()
    assert model.other.weight.grad is None
    model(x(), torch.zeros(4)).sum().backward()
    assert model.other.weight.grad is not None


@pytest.mark.parametrize(
    "ask",
    [
        lambda self, x: bool((self.fc(x) > 0).any()),
        lambda self, x: bool((torch.rand(2) > 0.5).any()),
        lambda self, x: float(self.weight.sum()) > 0,
    ],
    ids=["of a layer", "of chance", "of a parameter"],
)
def test_what_inputs_do_not_decide_keeps_the_module_whole(ask: Any) -> None:
    """Asking again before the run would mean running the model."""
    program = capture(Trunk(Part(lambda self, x: self.fc(x) if ask(self, x) else x)), (x(),))
    assert opaque_paths(program) == ["middle"]
    assert "control flow depends on a tensor" in program.remarks[0].message


def test_layer_drop_of_probability_zero_is_no_question() -> None:
    """A uniform random number is never below zero; the number is drawn all the same."""
    model = Trunk(Part(lambda self, x: x if torch.rand([]) < 0.0 else self.fc(x)))
    program = capture(model, (x(),))
    assert opaque_paths(program) == []
    torch.manual_seed(0)
    program.graph_module(x())
    found = torch.rand(1)
    torch.manual_seed(0)
    model(x())
    assert torch.equal(found, torch.rand(1))


def test_question_that_sizes_decide_is_a_condition_on_them() -> None:
    """``torch.ones(n).all()`` of a size: nothing is asked at run time."""
    program = capture(Part(lambda self, x: self.fc(x) if torch.ones(x.shape[0]).all() else x), (x(),))
    assert program.front_end == "symbolic"
    assert program.guards.questions is None
    assert program.guards.conditions
