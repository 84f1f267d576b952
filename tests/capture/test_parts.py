"""Iterating over what a chunk or split gave: its number of parts is known from the call."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import autopar


class Parts(nn.Module):
    """Projects, takes the result apart in a loop, and puts it together again."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.project = nn.Linear(4, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, 4) to (batch, size of a part)."""
        whole = self.project(x)
        if self.how == "chunk":
            parts = whole.chunk(3, dim=-1)
        elif self.how == "keyword":
            parts = torch.chunk(whole, chunks=3, dim=-1)
        elif self.how == "sections":
            parts = torch.split(whole, [2, 2, 2], dim=-1)
        else:
            parts = whole.split(2, dim=-1)
        return sum(part.relu() for part in parts)  # type: ignore[return-value]


@pytest.mark.parametrize("how", ["chunk", "keyword", "sections"])
def test_a_known_number_of_parts_is_iterated(how: str) -> None:
    """A loop over parts whose number stands in the call is captured as operations."""
    program = autopar.trace(Parts(how), torch.randn(2, 4))
    assert program.front_end == "symbolic"
    assert not list(program.find("call_module"))


def test_a_number_of_parts_that_depends_on_a_size_is_a_condition() -> None:
    """Splitting into parts of a size: the graph is for inputs that give as many."""
    program = autopar.trace(Parts("size"), torch.randn(2, 4))
    assert program.front_end == "symbolic"
    assert program.guards.uncertain
