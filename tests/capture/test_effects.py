"""What a forward does to the world outside, and what its first run sets up."""

# ruff: noqa: D102 - a forward is what its class says

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import autopar
from autopar.capture.ladder import capture
from tests.capture.models import Part, Trunk, opaque_paths, x


def test_printing_stays_one_line_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    """The module that prints runs as it is; capture itself prints nothing."""

    def says(self: Part, x: torch.Tensor) -> torch.Tensor:
        print("rows:", x.shape[0])
        return self.fc(x)

    model = autopar.parallelize(Trunk(Part(says)), "ddp")
    for _ in range(3):
        model(x())
    assert capsys.readouterr().out == "rows: 3\n" * 3


def test_writing_a_file_keeps_a_module_whole(tmp_path: Path) -> None:
    """The remark says why."""

    def logs(self: Part, x: torch.Tensor) -> torch.Tensor:
        with (tmp_path / "log").open("a") as file:
            file.write("step\n")
        return self.fc(x)

    program = capture(Trunk(Part(logs)), (x(),))
    assert opaque_paths(program) == ["middle"]
    assert "opens a file to write to it" in program.remarks[0].message


class Lazy(nn.Module):
    """Sets itself up when it first runs, as libraries do."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.kind: str | None = None
        self.table: torch.Tensor | None = None
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind is None:
            self.kind, self.table = "regression", torch.arange(4.0)
        return self.fc(x) + self.table


def test_what_a_first_forward_sets_up_is_found_by_the_graph() -> None:
    """The model is left as it was by capture, and set up by its first real step."""
    model = Lazy()
    program = capture(model, (x(),))
    assert program.front_end == "symbolic"
    assert model.kind is None
    plain = Lazy()
    plain.load_state_dict(model.state_dict())
    parallel = autopar.parallelize(model, "ddp")
    assert torch.equal(parallel(x()), plain(x()))
    assert model.kind == "regression"
    assert torch.equal(parallel(x(5)), plain(x(5)))


def test_a_counter_is_not_set_up() -> None:
    """It changes in every forward: the module that counts stays whole, and counts once a step."""

    def counts(self: Part, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.fc(x) * self.calls

    model = autopar.parallelize(Trunk(Part(counts)), "ddp")
    for _ in range(3):
        model(x())
    assert model.middle.calls == 3


def test_objects_that_hold_no_tensor_are_returned_as_they_are() -> None:
    """Settings that a result refers to are the model's own."""
    settings = object()

    class Result:
        def __init__(self, logits: torch.Tensor) -> None:
            self.logits, self.settings, self.names = logits, settings, ["a"]

    program = capture(Part(lambda self, x: Result(self.fc(x))), (x(),))
    found: Any = program.signature.unflatten(program.graph_module(x()))
    assert type(found) is Result
    assert found.settings is settings
