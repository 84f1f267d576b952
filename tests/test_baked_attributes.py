"""Plain attributes that forward reads are part of what a compiled program is exact for."""

from __future__ import annotations

import torch
from torch import nn

import autopar


class Scaled(nn.Module):
    """Multiplies by an attribute that a schedule may change."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = 0.5
        self.fc = nn.Linear(3, 3)
        self.norm = nn.LayerNorm(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, 3) to (batch, 3)."""
        return self.norm(self.fc(x)) * self.alpha


def test_a_changed_attribute_is_honoured() -> None:
    """A schedule on a float attribute has the effect that it has on the plain model."""
    model = autopar.parallelize(Scaled(), "ddp")
    x = torch.randn(2, 3)
    half = model(x)
    model.alpha = 1.0
    assert torch.equal(model(x), half * 2)
    model.alpha = 0.5
    assert torch.equal(model(x), half)


def test_an_attribute_of_an_opened_module_is_honoured() -> None:
    """So has a change to an option of a torch.nn module that was opened into operations."""
    model = autopar.parallelize(Scaled(), "ddp")
    x = torch.randn(2, 3)
    before = model(x)
    model.norm.eps = 10.0
    assert not torch.equal(model(x), before)


def test_what_was_baked_in_is_named() -> None:
    """The program lists each attribute with the value that it holds for."""
    program = autopar.trace(Scaled(), torch.randn(2, 3))
    assert program.attributes["", "alpha"] == 0.5
    assert ("norm", "eps") in program.attributes
