"""The gate refuses every graph whose step is not eager's."""

# ruff: noqa: D102 - a forward is what its class says

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from autopar.capture import climb
from autopar.capture.ladder import capture
from autopar.capture.symbolic import Recording
from autopar.errors import ModelError
from autopar.program import Program
from tests.capture.models import Part, Trunk, dropout, gelu_mlp, opaque_paths, x


class Whole(nn.Module):
    """Uses an operation of every kind that a bug could touch."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.norm(self.fc(x) * 2.0) + self.frozen
        return F.dropout(x, 0.5), x.detach(), "name"


def drop_an_operation(program: Program) -> None:
    """The multiplication is gone."""
    (node,) = program.find("call_function", operator.mul)
    node.replace_all_uses_with(node.args[0])
    program.graph.erase_node(node)


def change_a_constant(program: Program) -> None:
    """2.0 becomes 3.0."""
    (node,) = program.find("call_function", operator.mul)
    node.args = (node.args[0], 3.0)


def cut_a_gradient(program: Program) -> None:
    """The values stay; the gradient does not."""
    (node,) = program.find("call_module", "fc")
    with program.graph.inserting_after(node):
        cut = program.graph.call_method("detach", (node,))
    node.replace_all_uses_with(cut, delete_user_cb=lambda user: user is not cut)


def norm_twice(program: Program) -> None:
    """The statistics are updated twice; the outputs are eager's."""
    (node,) = program.find("call_module", "norm")
    with program.graph.inserting_before(node):
        program.graph.call_module("norm", node.args)


def draw_once_more(program: Program) -> None:
    """The next step would see another stream."""
    (output,) = program.find("output")
    with program.graph.inserting_before(output):
        program.graph.call_function(torch.rand, (1,))


def write_to_the_input(program: Program) -> None:
    """Through a detached view, which backward does not notice."""
    (output,), (value,) = program.find("output"), program.find("placeholder")
    with program.graph.inserting_before(output):
        view = program.graph.call_function(getattr, (value, "data"))
        program.graph.call_method("add_", (view, 1))


def lose_an_output(program: Program) -> None:
    """One leaf is missing."""
    (output,) = program.find("output")
    output.args = (output.args[0][:1],)


def change_a_constant_output(program: Program) -> None:
    """Another name is returned."""
    assert isinstance(program.signature.out_constants, dict)
    program.signature.out_constants.update(dict.fromkeys(program.signature.out_constants, "other"))


def read_nothing(program: Program) -> None:
    """The graph itself raises."""
    (node,) = program.find("call_function", operator.mul)
    node.args = (node.args[0], None)


PLANTED: dict[Callable[[Program], None], str] = {
    drop_an_operation: "output 0 differed from eager",
    change_a_constant: "output 0 differed from eager",
    cut_a_gradient: "output 0 requires a gradient in one of the two only|gradient of 'fc.weight' differed",
    norm_twice: "the buffer 'norm.running_mean' differed from eager",
    draw_once_more: "it drew other random numbers than eager",
    write_to_the_input: "the gradient of 'fc.weight' differed|it left other values in its input 0 than eager",
    lose_an_output: "the captured graph raised|values instead of",
    change_a_constant_output: "output 2 differed from eager",
    read_nothing: "the captured graph raised TypeError",
}


@pytest.mark.parametrize(("bug", "reason"), PLANTED.items(), ids=[bug.__name__ for bug in PLANTED])
def test_planted_bug_is_caught(bug: Callable[[Program], None], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The front end is not taken, and the reason says which difference it was."""
    plant(bug, monkeypatch)
    with pytest.raises(ModelError, match="the gate refused the symbolic capture, because ") as caught:
        capture(Whole(), (x(),), front_end="symbolic")
    assert any(part in str(caught.value) for part in reason.split("|"))


def test_another_front_end_is_taken_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that differs costs its form and nothing else."""
    plant(change_a_constant, monkeypatch)
    program = capture(Whole(), (x(),))
    assert program.front_end == "export"
    assert "the gate refused the symbolic capture" in program.remarks[0].message


def plant(bug: Callable[[Program], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a bug into every recorded program."""

    def wrong(self: Recording, changed: Any) -> Program | None:
        program = right(self, changed)
        assert program is not None
        bug(program)
        program.graph_module.recompile()
        return program

    right = Recording.program
    monkeypatch.setattr(Recording, "program", wrong)


def test_right_graph_passes() -> None:
    """The same model without a bug, and the remark that says so."""
    program = capture(Whole(), (x(),))
    assert program.front_end == "symbolic"
    assert "one step equals eager" in program.remarks[-1].message


def test_gate_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model runs once then, to be recorded."""
    monkeypatch.setattr(climb, "eager_step", lambda *args: pytest.fail("a step was run"))
    assert capture(Whole(), (x(),), gate=False).front_end == "symbolic"


def test_state_kept_where_nobody_looks_is_caught() -> None:
    """A closure that counts is no attribute; the eager step differs from the graph's."""
    calls: list[int] = []

    def counts(self: Part, x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return self.fc(x) * len(calls)

    assert capture(Trunk(Part(counts)), (x(),)).front_end == "opaque"


@pytest.mark.parametrize(
    "output",
    [
        lambda y: torch.where(y > 0, y, torch.nan),
        lambda y: y / 0.0,
        lambda y: y.to(torch.complex64) * 1j,
        lambda y: y > 0,
        lambda y: (y * 0).to_sparse(),
        lambda y: y.half(),
        lambda y: y[:0],
        lambda y: y.argmax(),
        lambda y: dropout(y),
    ],
    ids=["nan", "inf", "complex", "bool", "sparse", "half", "empty", "integer", "dropout"],
)
def test_outputs_of_every_kind_compare(output: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """None of them is refused for what it is."""
    model = Trunk(Part(lambda self, x: self.fc(x)))
    program = capture(nn.Sequential(model, Part(lambda self, x: output(x))), (x(),))
    assert program.front_end == "symbolic"
    assert opaque_paths(program) == []


def test_model_without_gradients_is_captured() -> None:
    """Nothing requires a gradient, so only values are compared."""
    assert capture(gelu_mlp().requires_grad_(False), (x(),)).front_end == "symbolic"


def test_failing_backward_is_the_user_s_business() -> None:
    """Both steps fail alike, so the graph is what the model is."""

    def saved_and_changed(self: Part, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x).exp()
        y += 1
        return y

    program = capture(Trunk(Part(saved_and_changed)), (x(),))
    assert program.front_end == "symbolic"
    assert isinstance(program.graph_module, fx.GraphModule)
