"""What a graph cannot hold stays eager, in the smallest piece, with the place and the reason."""

# ruff: noqa: D102 - a forward is what its class says

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from autopar.capture.ladder import capture
from autopar.errors import ModelError
from autopar.program import info
from tests.capture.models import (
    OPENED,
    REFUSED,
    Part,
    Trunk,
    branches_on_values,
    captured,
    checkpointed_reentrantly,
    counts,
    custom_function,
    draws_in_python,
    opaque_paths,
    run,
    writes_buffer,
    writes_buffer_through_view,
    writes_item_of_buffer,
    writes_plain_tensor,
    x,
)


@pytest.mark.parametrize("middle", OPENED, ids=lambda middle: middle.__name__)
def test_what_looks_untraceable_becomes_operations(middle: Callable[..., Any]) -> None:
    """Custom functions, no_grad blocks, loops over sizes: gradients are eager's, too."""
    model = Trunk(Part(middle))
    program = capture(model, (x(),))
    assert program.front_end == "symbolic"
    assert opaque_paths(program) == []
    parameters = list(model.parameters())
    found = torch.autograd.grad(run(program, x()).square().sum(), parameters, allow_unused=True)
    expected = torch.autograd.grad(model(x()).square().sum(), parameters, allow_unused=True)
    assert all(a is b or torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("middle", REFUSED, ids=lambda middle: middle.__name__)
def test_only_the_region_stays_eager(middle: Callable[..., Any]) -> None:
    """The layers around it are nodes of their own, and a step equals eager."""
    model = Trunk(Part(middle))
    program = capture(model, (x(),))
    assert program.front_end == "symbolic"
    assert [node.target for node in program.find("call_module")] == ["first", "middle", "last"]
    (node,) = program.find("call_module", "middle")
    assert info(node).opaque


@pytest.mark.parametrize(("middle", "reason"), REFUSED.items(), ids=[middle.__name__ for middle in REFUSED])
def test_remark_names_path_reason_line_and_bytes(middle: Callable[..., Any], reason: str) -> None:
    """A user can find the place and knows what it costs."""
    (remark,) = [one for one in captured(middle).remarks if one.kind == "missed"]
    assert remark.message.startswith("middle (Part) stays one opaque call: ")
    assert reason in remark.message
    assert remark.module_path == "middle"
    assert remark.source is not None
    assert remark.source.file.endswith("models.py")
    assert remark.nbytes == 4 * (16 + 4 + 4)
    assert remark.mend


def test_remark_points_at_the_line_that_forced_it() -> None:
    """Not at the call of the module, when the failure has a line of its own."""
    (remark,) = [one for one in captured(branches_on_values).remarks if one.kind == "missed"]
    assert remark.source is not None
    line = Path(remark.source.file).read_text().splitlines()[remark.source.line - 1]
    assert line.strip() == "if x.sum() > 0:"


@pytest.mark.parametrize(
    "middle", [m for m in REFUSED if m is not branches_on_values], ids=lambda middle: middle.__name__
)
def test_a_root_that_cannot_be_traced_is_one_call(middle: Callable[..., Any]) -> None:
    """Capture never fails for a model that runs eagerly; torch.export takes what only writes to buffers."""
    program = capture(Part(middle), (x(),))
    if middle in (writes_buffer, writes_buffer_through_view, writes_item_of_buffer, writes_plain_tensor):
        assert program.front_end == "export"
        return
    assert program.front_end == "opaque"
    (remark,) = [one for one in program.remarks if one.kind == "missed"]
    assert "stays one opaque call as a whole: " in remark.message
    assert remark.nbytes == 4 * (16 + 4 + 4)


def test_random_numbers_of_python_keep_only_their_module_whole() -> None:
    """However deep it is; what it draws is not its callers' doing."""
    model = nn.Sequential(Trunk(nn.Sequential(Part(draws_in_python), nn.Linear(4, 4))), nn.Linear(2, 2))
    assert opaque_paths(capture(model, (x(),))) == ["0.middle.0"]


def test_opaque_root_says_where() -> None:
    """The line that forced it is in the remark."""
    remark = capture(Part(counts), (x(),)).remarks[0]
    assert remark.source is not None
    assert remark.source.file.endswith("models.py")


def test_nested_regions_report_the_outer_one_only() -> None:
    """What stays whole inside of what stays whole needs no remark of its own."""
    outer = Part(branches_on_values)
    outer.fc = Part(counts)  # type: ignore[assignment]
    assert opaque_paths(capture(Trunk(outer), (x(),))) == ["middle"]


def test_module_hooks_keep_a_module_whole() -> None:
    """Hooks run as they always did."""
    model = Trunk(nn.Linear(4, 4))
    model.middle.register_forward_hook(lambda module, args, output: output * 2)
    program = capture(model, (x(),))
    assert opaque_paths(program) == ["middle"]
    assert torch.equal(run(program, x()), model(x()))


def test_hooks_on_all_modules_keep_everything_whole() -> None:
    """A graph would call fewer modules than eager does."""
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, output: None)
    try:
        program = capture(Trunk(nn.ReLU()), (x(),))
    finally:
        handle.remove()
    assert "hooks are registered on all modules" in program.remarks[0].message


def test_parametrized_module_is_operations() -> None:
    """What computes its weight is recorded like everything else."""
    model = Trunk(parametrizations.weight_norm(nn.Linear(4, 4)))
    program = capture(model, (x(),))
    assert opaque_paths(program) == []
    assert torch.equal(run(program, x()), model(x()))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_script_module_stays_whole() -> None:
    """There is no Python forward to trace."""
    model = Trunk(torch.jit.script(nn.Linear(4, 4)))
    program = capture(model, (x(),))
    assert "it is a ScriptModule" in program.remarks[0].message
    assert torch.equal(run(program, x()), model(x()))


def test_forward_replaced_on_the_instance_stays_whole() -> None:
    """The class's forward is not what runs."""
    model = Trunk(nn.Linear(4, 4))
    model.middle.forward = lambda x: x * 2  # type: ignore[method-assign]
    assert opaque_paths(capture(model, (x(),))) == ["middle"]


def test_forward_replaced_on_the_root_is_what_is_captured() -> None:
    """Also without the gate."""
    model = Trunk(nn.ReLU())
    model.forward = lambda x: x * 2  # type: ignore[method-assign]
    program = capture(model, (x(),), gate=False)
    assert program.front_end == "opaque"


def test_unregistered_submodule_refuses_its_caller() -> None:
    """Its parameters are not the model's."""
    outside = [nn.Linear(4, 4)]
    program = capture(Trunk(Part(lambda self, x: outside[0](self.fc(x)))), (x(),))
    assert opaque_paths(program) == ["middle"]
    assert "parameter that is no parameter of the model" in program.remarks[0].message


def test_foreign_parameter_refuses_its_user() -> None:
    """It would have to be a constant of the graph."""
    outside = nn.Parameter(torch.ones(4))
    program = capture(Trunk(Part(lambda self, x: self.fc(x) * outside)), (x(),))
    assert "parameter that is no parameter of the model" in program.remarks[0].message


class Dropped(nn.Module):
    """Returns an object that is no structure of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        return Result(self.fc(x))


@dataclasses.dataclass
class Result:
    """A dataclass that pytree does not know."""

    logits: torch.Tensor


def test_objects_in_outputs_are_taken_apart_and_rebuilt() -> None:
    """Pytree knows nothing of this class; the user gets one of it with gradients that flow."""
    model = Dropped()
    program = capture(model, (x(),))
    assert program.front_end == "symbolic"
    found = run(program, x(5))
    assert type(found) is Result
    assert torch.equal(found.logits, model(x(5)).logits)
    assert found.logits.requires_grad


class Cache:
    """An object argument that a forward writes to."""

    def __init__(self) -> None:
        self.entries: list[torch.Tensor] = []


class Caching(nn.Module):
    """Takes such an object."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, cache: Cache) -> torch.Tensor:
        cache.entries.append(x)
        return self.fc(x)


def test_object_argument_keeps_the_model_whole_and_is_not_touched() -> None:
    """The model is not run on it even once."""
    cache = Cache()
    program = capture(Caching(), (x(), cache))
    assert program.front_end == "opaque"
    assert "takes a Cache as an argument" in program.remarks[0].message
    assert cache.entries == []


@pytest.mark.parametrize(
    ("layer", "call"),
    [
        (nn.MultiheadAttention(4, 2, batch_first=True), lambda layer, x: layer(x, x, x)[0]),
        (nn.LSTM(4, 4), lambda layer, x: layer(x)[0]),
        (nn.GRU(4, 4, 2, dropout=0.3), lambda layer, x: layer(x)[0]),
        (nn.TransformerEncoderLayer(4, 2, 8), lambda layer, x: layer(x)),
        (nn.TransformerDecoderLayer(4, 2, 8), lambda layer, x: layer(x, x)),
    ],
    ids=["mha", "lstm", "gru", "encoder", "decoder"],
)
def test_torch_layers_stay_one_call(layer: nn.Module, call: Any) -> None:
    """They are exact as they are; random numbers included."""

    class Uses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return call(self.layer, x)

    model, batch = Uses(), torch.randn(3, 2, 4)
    program = capture(model, (batch,))
    assert program.front_end == "symbolic"
    torch.manual_seed(5)
    found = run(program, batch)
    torch.manual_seed(5)
    assert torch.equal(found, model(batch))


def test_lazy_modules_are_refused() -> None:
    """Nothing has a size yet; the message names a parameter and the mend."""
    with pytest.raises(ModelError, match=r"lazy parameters without a shape: 0\.weight.*Run the model once"):
        capture(nn.Sequential(nn.LazyLinear(3)), (x(),))


@pytest.mark.parametrize("gate", [True, False])
def test_reentrant_checkpoint_below_other_layers(gate: bool) -> None:
    """Reentrant checkpointing refuses ``autograd.grad``; capture does not fall over that."""
    program = capture(Trunk(Part(checkpointed_reentrantly)), (x(),), gate=gate)
    assert opaque_paths(program) == ["middle"]
    assert all(parameter.grad is None for parameter in program.model.parameters())


def test_a_model_that_raises_raises_the_same_error() -> None:
    """Unchanged, with the user's traceback."""

    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        capture(Broken(), (x(),))
    assert caught.traceback[-1].path.name == "test_fallbacks.py"


def test_wrong_shape_raises_torch_s_own_error() -> None:
    """An input that the model refuses is the model's business."""
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        capture(nn.Linear(4, 4), (torch.zeros(2, 5),))


@pytest.mark.parametrize("middle", [custom_function, writes_buffer, counts])
def test_gradients_of_the_program_are_eager_s(middle: Callable[..., Any]) -> None:
    """Through the opaque region, too."""
    model = Trunk(Part(middle))
    program = capture(model, (x(),))
    torch.manual_seed(0)
    parameters = list(model.parameters())
    found = torch.autograd.grad(run(program, x()).square().sum(), parameters, allow_unused=True)
    model.middle.calls = 0
    model.middle.total.zero_()
    expected = torch.autograd.grad(model(x()).square().sum(), parameters, allow_unused=True)
    assert all(a is b or torch.equal(a, b) for a, b in zip(found, expected, strict=True))


class ReadsLast(nn.Module):
    """Reads what an opaque child remembers, as mixtures of experts do with their auxiliary loss."""

    def __init__(self, attribute: str) -> None:
        super().__init__()
        self.child, self.attribute = Part(remembers_all), attribute

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.child(x)
        read = getattr(self.child, self.attribute)
        return out + (read[-1] if isinstance(read, list) else read)


def remembers_all(self: Part, x: torch.Tensor) -> torch.Tensor:
    """Changes an attribute, a list and a buffer."""
    self.last_input = x
    self.seen.append(x)
    self.total = self.total + x.detach().sum(0)
    return self.fc(x)


@pytest.mark.parametrize("attribute", ["last_input", "total"])
@pytest.mark.parametrize("gate", [True, False], ids=["gated", "ungated"])
def test_reader_of_what_an_opaque_module_changes(attribute: str, gate: bool) -> None:
    """The value of the attribute while tracing is the last step's: its reader stays whole, too."""
    model = Trunk(ReadsLast(attribute))
    program = capture(model, (x(),), gate=gate)
    assert opaque_paths(program) == ["middle"]
    assert "reads an attribute that an opaque module changes" in program.remarks[0].message
    assert model.middle.child.last_input is None
    assert torch.equal(model.middle.child.total, torch.zeros(4))


def test_root_that_reads_what_an_opaque_module_changes() -> None:
    """There is nothing smaller than the whole model then."""
    program = capture(ReadsLast("last_input"), (x(),), gate=False)
    assert program.front_end == "opaque"


def test_own_generator_is_refused() -> None:
    """Its state cannot be an argument of a node; nothing is left on the model."""
    part = Part(lambda self, x: self.fc(x) + torch.rand(4, generator=self.generator))
    part.generator = torch.Generator()
    program = capture(Trunk(part), (x(),))
    assert "draws from a generator of its own" in program.remarks[0].message
    assert not [name for name in vars(program.model) if "opaque" in name]
