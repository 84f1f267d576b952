"""Sizes are ordinary numbers for the user's code and expressions for the graph."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import autopar
from autopar.attach import attachment_of
from autopar.capture.ladder import capture
from autopar.capture.sizes import Size, SizeNotes
from autopar.guards import Condition, Dim
from tests.capture.models import Part, Trunk, run, x


def size(value: int = 6, notes: SizeNotes | None = None) -> Size:
    """A size of the first dim of an input."""
    return Size.of(value, Dim("x", 0), notes or SizeNotes())


@pytest.mark.parametrize(
    "compute",
    [
        lambda n: n + 1, lambda n: 1 + n, lambda n: n - 2, lambda n: 2 - n, lambda n: n * 3, lambda n: n // 2,
        lambda n: 7 // n, lambda n: n % 4, lambda n: -n, lambda n: n * n, lambda n: n**2,
    ],
)  # fmt: skip
def test_arithmetic_is_followed(compute: Callable[[Any], Any]) -> None:
    """The value is the number's, and nothing is pinned."""
    n = size()
    result = compute(n)
    assert type(result) is Size
    assert int.__int__(result) == compute(6)
    assert not n.notes.conditions


@pytest.mark.parametrize(
    "use",
    [
        float, int, bool, str, hash, math.sqrt, lambda n: n / 2, lambda n: n * 0.5, lambda n: [0] * n,
        lambda n: f"{n}", lambda n: {n: 1}, lambda n: n in (1, 2), lambda n: n**-1, lambda n: divmod(n, 4),
        lambda n: n & 2, round,
    ],
)  # fmt: skip
def test_what_needs_the_number_is_a_condition(use: Callable[[Any], Any]) -> None:
    """It gets the number, and the graph rests on it."""
    n = size()
    assert use(n) == use(6)
    assert n.notes.conditions


def test_conditions_hold_for_sizes_that_answer_alike() -> None:
    """A comparison rests on its outcome, not on the number."""
    n = size()
    assert n > 4
    (condition,) = n.notes.conditions
    assert condition == Condition(operator.gt, (Dim("x", 0), 4), outcome=True)
    assert condition.holds(lambda dim: 5)
    assert not condition.holds(lambda dim: 4)


def loops(self: Part, x: torch.Tensor) -> torch.Tensor:
    """A loop over the batch."""
    return torch.stack([self.fc(x[i]) for i in range(x.shape[0])])


def halves(self: Part, x: torch.Tensor) -> torch.Tensor:
    """Another computation for short inputs."""
    return self.fc(x) if x.shape[0] > 4 else self.fc(x) * 2


def flattens(self: Part, x: torch.Tensor) -> torch.Tensor:
    """Nothing but arithmetic on sizes."""
    rows, columns = x.shape
    return self.fc(x.reshape(rows * columns // 4, columns)) + torch.zeros(rows, columns)


def compilations(model: nn.Module) -> int:
    """How many programs a parallel model has."""
    attachment = attachment_of(model)
    assert attachment is not None
    return len(attachment._entries)


@pytest.mark.parametrize(("middle", "programs"), [(flattens, 1), (halves, 2), (loops, 3)])
def test_every_size_gets_the_graph_that_is_right_for_it(middle: Callable[..., Any], programs: int) -> None:
    """One for all sizes, one for each answer, or one for each size; outputs and gradients are eager's."""
    plain = Trunk(Part(middle))
    model = autopar.parallelize(Trunk(Part(middle)), "ddp")
    model.load_state_dict(plain.state_dict())
    for rows in (3, 5, 8, 3, 5):
        found, expected = model(x(rows)), plain(x(rows))
        assert torch.equal(found, expected)
        for one, other in zip(
            torch.autograd.grad(found.square().sum(), list(model.parameters()), allow_unused=True),
            torch.autograd.grad(expected.square().sum(), list(plain.parameters()), allow_unused=True),
            strict=True,
        ):
            assert one is other or torch.equal(one, other)
    assert compilations(model) == programs


def test_a_size_known_only_inside_needs_another_recording() -> None:
    """What a condition says of an intermediate size cannot be asked of the inputs: the graph is recorded again."""

    def inside(self: Part, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x)
        return y * math.sqrt(y.shape[1])

    model = Trunk(Part(inside))
    program = capture(model, (x(),))
    assert program.guards.uncertain
    parallel = autopar.parallelize(model, "ddp")
    for rows in (3, 5, 7):
        parallel(x(rows))
    assert compilations(parallel) == 1
    attachment = attachment_of(parallel)
    assert attachment is not None
    captured = attachment._entries[0].captured
    assert captured is not None
    assert len(captured.guards.confirmed) == 3


def test_range_is_itself_again() -> None:
    """Also where a forward raised."""

    def breaks(self: Part, x: torch.Tensor) -> torch.Tensor:
        assert isinstance(range(2), range)
        raise KeyError

    with pytest.raises(KeyError):
        capture(Part(breaks), (x(),))
    assert range(2) == __builtins__["range"](2)  # type: ignore[index]
    assert isinstance(range, type)
    assert "capture" not in repr(range)


def test_sizes_do_not_leave_capture() -> None:
    """A number read from a shape is a plain one in results and in what a model remembers."""

    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.rows = 0

        def forward(self, x: torch.Tensor) -> Any:
            self.rows = x.shape[0]
            return self.fc(x), x.shape[1]

    model = autopar.parallelize(Sized(), "ddp")
    _, columns = model(x())
    assert type(columns) is int
    assert type(model.rows) is int


def test_number_in_a_result_follows_the_input() -> None:
    """It is computed by the graph, like a tensor."""
    program = capture(Part(lambda self, x: (self.fc(x), x.shape[0] * 2)), (x(),))
    assert run(program, x(5))[1] == 10
