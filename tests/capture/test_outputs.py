"""Every output of a program is one leaf of the result."""

# ruff: noqa: D102 - a forward is what its class says

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from autopar.capture.ladder import capture
from tests.capture.models import run


class EndsInLSTM(nn.Module):
    """Returns what an opaque call returns, beside other things."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        return {"name": "lstm", "result": self.lstm(x), "sum": x.sum()}


def test_tuple_of_an_opaque_call_is_taken_apart() -> None:
    """The LSTM's (output, (h, c)) are three outputs of the graph."""
    model, batch = EndsInLSTM(), torch.ones(3, 4)
    program = capture(model, (batch,))
    assert program.front_end == "symbolic"
    leaves = program.graph_module(batch)
    assert [type(leaf) for leaf in leaves] == [torch.Tensor] * 4
    found, expected = run(program, batch), model(batch)
    assert torch.equal(found["result"][1][1], expected["result"][1][1])
    assert (found["name"], float(found["sum"])) == ("lstm", 12.0)


class MaybeNone(nn.Module):
    """An opaque call whose result holds None."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.attention(x, x, x, need_weights=False)


def test_none_inside_of_an_opaque_result() -> None:
    """It comes out where eager has it."""
    model, batch = MaybeNone(), torch.ones(3, 2, 4)
    found = run(capture(model, (batch,)), batch)
    assert found[1] is None
    assert torch.equal(found[0], model(batch)[0])


def test_other_structures_are_left_alone() -> None:
    """A result that is flat already is not touched."""
    program = capture(nn.Linear(4, 2), (torch.ones(3, 4),))
    assert [node.op for node in program.graph.nodes].count("call_function") == 1
