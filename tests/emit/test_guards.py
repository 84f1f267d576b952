"""A printed forward runs the user's own for calls that its graph is not for."""

# ruff: noqa: D102 - a forward is what its class says

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import autopar
from autopar.emit import emit_forward
from autopar.emit.forward import write_forward


class Loops(nn.Module):
    """A row at a time: the graph holds as many rows as were recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        return torch.stack([self.fc(x[i]) for i in range(x.shape[0])]) * scale


class Asks(nn.Module):
    """Leaves a mask out where it masks nothing, and cuts long inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x[:4] if x.shape[0] > 4 else x
        return self.fc(x) if mask.all() else self.fc(x) * mask


def printed(model: nn.Module, *args: Any) -> Any:
    """The printed forward as a function."""
    function = write_forward(autopar.trace(model, *args))
    source = "\n".join([*function.imports.lines(), *function.lines])
    names: dict[str, Any] = {}
    exec(source, names)
    return names["forward"]


@pytest.mark.parametrize("rows", [3, 5, 2])
def test_other_sizes_run_the_users_forward(rows: int) -> None:
    """Not the wrong number of rows."""
    model = Loops()
    forward, x = printed(model, torch.ones(3, 4)), torch.randn(rows, 4)
    assert torch.equal(forward(model, x), model(x))


@pytest.mark.parametrize("rows", [2, 6])
@pytest.mark.parametrize("mask", [torch.ones(4), torch.arange(4.0)], ids=["ones", "some"])
def test_other_answers_run_the_users_forward(rows: int, mask: Tensor) -> None:
    """The question is printed as a function of its own."""
    model = Asks()
    forward, x = printed(model, torch.ones(3, 4), torch.ones(4)), torch.randn(rows, 4)
    assert torch.equal(forward(model, x, mask), model(x, mask))


def test_conditions_are_readable() -> None:
    """As Python would write them; a graph for every size has none."""
    text = emit_forward(autopar.trace(Asks(), torch.ones(3, 4), torch.ones(4)))
    assert "if x.shape[0] > 4 or asked_of_inputs(self, x, mask) != (True,):" in text
    assert "eager_forward" not in emit_forward(autopar.trace(nn.Linear(4, 4), torch.ones(3, 4)))
