"""Programs of torch.export, with and without dynamo: the same form as a recording's, exact, and guarded."""

# ruff: noqa: D102 - a forward is what its class says

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import pytest
import torch
from torch import nn

import autopar
from autopar.capture.ladder import CHOICES, capture
from autopar.capture.streams import RandomStreams
from autopar.errors import ModelError, UnknownNameError
from autopar.program import info
from tests.capture.models import Part, branches_on_values, counts, custom_function, draws_in_python, writes_buffer, x

_EXPORTS = ("export", "dynamo")


@dataclasses.dataclass
class Result:
    """An output that pytree knows nothing of."""

    logits: torch.Tensor
    name: str
    size: int


class Net(nn.Module):
    """Dropout, a batch norm, a buffer that is written to, constants, a size, and a structured result."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm, self.drop = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)
        self.out = nn.Linear(8, 4)
        self.register_buffer("steps", torch.zeros(1))
        self.scale = 2.0
        self.unused = 1

    def forward(self, inputs: dict[str, torch.Tensor], *, flag: bool | None = None) -> Any:
        self.steps.add_(1)
        hidden = self.drop(self.norm(self.fc(inputs["a"])).relu_()) * self.scale
        with torch.no_grad():
            center = hidden.mean()
        shifted = self.out(hidden - center) + inputs["b"] + torch.tensor([1.0, 2.0, 3.0, 4.0])
        return {"result": Result(shifted.view(inputs["a"].shape[0] * 2, -1), "name", inputs["a"].shape[0])}, flag


def call(size: int = 3) -> dict[str, torch.Tensor]:
    """Arguments for a batch of so many samples."""
    torch.manual_seed(size)
    return {"a": torch.randn(size, 4), "b": torch.randn(4)}


@pytest.fixture(scope="module")
def programs() -> dict[str, Any]:
    """A program and its model for each front end of torch.export."""
    made = {}
    for front_end in _EXPORTS:
        torch.manual_seed(0)
        model = Net()
        made[front_end] = capture(model, (call(),), {"flag": None}, front_end=front_end), model
    return made


@pytest.mark.parametrize("front_end", _EXPORTS)
def test_model_is_left_as_it_was(front_end: str) -> None:
    """Its buffers, its gradients, its mode and all random streams."""
    torch.manual_seed(0)
    model, inputs = Net(), call()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    streams, level = RandomStreams(), logging.getLogger("torch").level
    capture(model, (inputs,), {"flag": None}, front_end=front_end)
    assert streams == RandomStreams()
    assert logging.getLogger("torch").level == level
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("front_end", _EXPORTS)
def test_form_is_that_of_a_recording(programs: dict[str, Any], front_end: str) -> None:
    """Reads of the user's own parameters by their names, placeholders for tensors, module paths and lines."""
    program, model = programs[front_end]
    assert program.front_end == front_end
    reads = {str(node.target) for node in program.find("get_attr")}
    assert reads == set(model.state_dict())
    assert program.graph_module.get_parameter("fc.weight") is model.fc.weight
    assert program.signature.inputs == ("inputs_0", "inputs_1")
    lines = {info(node).module_path: info(node).source for node in program.find("call_function")}
    assert {"", "fc", "norm", "drop", "out"} <= lines.keys()
    assert lines["fc"] is not None
    assert lines["fc"].file == __file__


@pytest.mark.parametrize("front_end", _EXPORTS)
def test_another_batch_size_equals_eager(programs: dict[str, Any], front_end: str) -> None:
    """Outputs in the user's structure, gradients, buffers written in place, and the same dropout."""
    program, model = programs[front_end]
    twin = Net()
    twin.load_state_dict(model.state_dict())
    torch.manual_seed(7)
    found, flag = program.signature.unflatten(program.graph_module(*call(5).values()))
    torch.manual_seed(7)
    expected, _ = twin(call(5))
    assert flag is None
    assert (found["result"].name, found["result"].size) == ("name", 5)
    assert torch.equal(found["result"].logits, expected["result"].logits)
    found["result"].logits.square().sum().backward()
    expected["result"].logits.square().sum().backward()
    for (name, mine), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad), name
    for (name, buffer), other in zip(model.named_buffers(), twin.buffers(), strict=True):
        assert torch.equal(buffer, other), name
    model.zero_grad()


@pytest.mark.parametrize("front_end", _EXPORTS)
def test_guards_are_on_what_was_specialised(programs: dict[str, Any], front_end: str) -> None:
    """The batch is free, the width of the input is not, and a single sample is another kind."""
    guards = programs[front_end][0].guards
    assert guards.sizes_hold(list(call(9).values()))
    assert guards.sizes_hold(list(call(1).values())) is False
    assert guards.sizes_hold([torch.randn(3, 5), torch.randn(4)]) is False


def test_attributes_that_the_graph_has_baked_in() -> None:
    """A forward that runs on fake tensors shows what it reads; dynamo shows nothing, so it is all of them."""
    exported = capture(Net(), (call(),), {"flag": None}, front_end="export").attributes
    assert exported["", "scale"] == 2.0
    assert ("", "unused") not in exported
    assert capture(Net(), (call(),), {"flag": None}, front_end="dynamo").attributes["", "unused"] == 1


class Ranges(nn.Module):
    """Looks at sizes, together and by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        total = one.shape[0] + 2 * other.shape[0]
        if total > 10:
            return self.fc(one).sum() + self.fc(other).sum()
        return self.fc(one).mean() + self.fc(other).mean() if total % 2 == 0 else self.fc(one).sum()


def test_conditions_on_several_sizes() -> None:
    """What Python found out about sums and remainders of sizes must hold again."""
    guards = capture(Ranges(), (torch.randn(2, 4), torch.randn(3, 4)), front_end="export").guards
    held = {
        (one, other): guards.sizes_hold([torch.randn(one, 4), torch.randn(other, 4)])
        for one, other in [(2, 3), (4, 2), (3, 2), (6, 3)]
    }
    assert held == {(2, 3): True, (4, 2): True, (3, 2): False, (6, 3): False}


@pytest.mark.parametrize("front_end", _EXPORTS)
def test_recurrent_layers(front_end: str) -> None:
    """Dynamo refuses them unless it is told not to."""
    model = nn.LSTM(4, 8, num_layers=2, batch_first=True)
    program = capture(model, (torch.randn(2, 5, 4),), front_end=front_end)
    assert len(list(program.find("get_attr"))) == len(list(model.parameters()))


def test_auto_takes_export_where_the_whole_model_cannot_be_recorded() -> None:
    """The remarks say what was preferred and why."""
    program = capture(Part(writes_buffer), (x(),))
    assert program.front_end == "export"
    first, last = program.remarks
    assert first.message.startswith("The symbolic front end was not taken: its forward writes to 'total' in place")
    assert first.source is not None
    assert "was captured by the export front end" in last.message


def test_auto_keeps_a_recording_with_an_opaque_part() -> None:
    """Where only a part cannot be recorded, the rest stays as it was written."""
    program = capture(nn.Sequential(nn.Linear(4, 4), Part(writes_buffer)), (x(),))
    assert program.front_end == "symbolic"


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        (custom_function, "custom autograd function"),
        (counts, "changes the attribute"),
        (draws_in_python, "random numbers"),
    ],
)
def test_what_export_would_drop_is_refused_without_a_gate(middle: Any, reason: str) -> None:
    """A gradient of the user's own, a counter, a random number of Python's."""
    with pytest.raises(ModelError, match=f"The export front end cannot capture Part: .*{reason}"):
        capture(Part(middle), (x(),), front_end="export", gate=False)


def test_gate_says_what_a_forced_front_end_gets_wrong() -> None:
    """A model that asks whether it is being exported is another one then."""

    class Loses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            result = self.fc(inputs)
            return result * 2 if torch.compiler.is_compiling() else result

    with pytest.raises(ModelError, match="gate refused the export capture, because output 0 differed from eager"):
        capture(Loses(), (x(),), front_end="export")


@pytest.mark.parametrize("front_end", [choice for choice in CHOICES if choice not in ("auto", "opaque")])
def test_forced_front_end_that_cannot_is_an_error(front_end: str) -> None:
    """It names the front end, the model and the reason, and how to get on."""
    with pytest.raises(ModelError, match=rf"The {front_end} front end cannot capture Part: .*capture='auto'"):
        capture(Part(counts), (x(),), front_end=front_end)


def test_forced_opaque_takes_anything() -> None:
    """And says that it was asked for."""
    program = capture(nn.Linear(4, 4), (x(),), front_end="opaque")
    assert program.front_end == "opaque"
    assert "it was asked for" in program.remarks[0].message


def test_unknown_front_end_suggests_the_nearest() -> None:
    """Before anything runs, in every place where one is chosen."""
    text = "There is no capture front end named 'exprot'. Did you mean 'export'?"
    with pytest.raises(UnknownNameError, match=text.replace("?", r"\?")):
        capture(nn.Linear(4, 4), (x(),), front_end="exprot")
    with pytest.raises(UnknownNameError, match="exprot"):
        autopar.parallelize(nn.Linear(4, 4), "ddp", capture="exprot")
    with pytest.raises(UnknownNameError, match="exprot"):
        autopar.trace(nn.Linear(4, 4), x(), autopar_capture="exprot")


def test_a_model_s_own_argument_named_capture_is_its_own() -> None:
    """The option of trace() has a name that no model uses."""

    class Takes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, inputs: torch.Tensor, *, capture: bool = False) -> torch.Tensor:
            return self.fc(inputs) if capture else inputs

    program = autopar.trace(Takes(), x(), capture=True, autopar_capture="export")
    assert program.front_end == "export"
    assert [node.target for node in program.find("get_attr")] == ["fc.weight", "fc.bias"]


def test_branch_on_values_is_refused_by_export() -> None:
    """torch.export says where; the sentence is its first line."""
    with pytest.raises(ModelError, match=r"torch\.export raised GuardOnDataDependentSymNode"):
        capture(Part(branches_on_values), (x(),), front_end="export")
