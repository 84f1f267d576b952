"""Capture leaves a model, its gradients, its inputs and all random streams as they were."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from autopar.capture.ladder import capture
from autopar.capture.state import ModelState, preserved
from autopar.capture.streams import RandomStreams
from autopar.capture.tape import Tape
from tests.capture.models import REFUSED, Part, Trunk, gelu_mlp, x


def conv_net() -> nn.Module:
    """A model with batch norm statistics and dropout."""
    return nn.Sequential(nn.Conv1d(4, 4, 1), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Flatten(), nn.LSTM(4, 4))


def renormalising() -> nn.Module:
    """An embedding whose forward writes to its weight."""
    return nn.Sequential(nn.Embedding(5, 4, max_norm=0.1), nn.Linear(4, 4))


def hooked() -> nn.Module:
    """A hook that removes itself when it runs first."""
    model = Trunk(nn.Linear(4, 4))
    handles: list[Any] = []
    handles.append(model.middle.register_forward_hook(lambda *_: handles[0].remove()))
    return model


MODELS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "mlp": (gelu_mlp, x()),
    "conv": (conv_net, torch.ones(3, 4, 1)),
    "renorm": (renormalising, torch.tensor([[0, 3]])),
    "hooked": (hooked, x()),
    **{middle.__name__: (lambda middle=middle: Trunk(Part(middle)), x()) for middle in REFUSED},
    **{f"root-{middle.__name__}": (lambda middle=middle: Part(middle), x()) for middle in REFUSED},
}


def picture(model: nn.Module) -> Any:
    """Everything of a model that can be compared, as plain data."""

    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return (id(value), value.dtype, value.detach().clone().tolist(), value.requires_grad)
        if isinstance(value, dict):
            return [(str(key), plain(item)) for key, item in value.items()]
        if isinstance(value, (list, tuple, set)):
            return [plain(item) for item in value]
        if hasattr(value, "count") and not isinstance(value, str):
            return plain(vars(value))
        return value if isinstance(value, (bool, int, float, str, type(None))) else id(value)

    gradients = [None if p.grad is None else (id(p.grad), p.grad.tolist()) for p in model.parameters()]
    return [(name, plain(vars(module))) for name, module in model.named_modules()], gradients


@pytest.mark.parametrize("gate", [True, False], ids=["gated", "ungated"])
@pytest.mark.parametrize(("build", "batch"), MODELS.values(), ids=list(MODELS))
def test_model_and_random_streams_are_as_before(build: Callable[[], nn.Module], batch: Any, gate: bool) -> None:
    """Attributes, containers, tensors, gradients, and what is drawn next."""
    model, kept = build(), batch.clone()
    for index, parameter in enumerate(model.parameters()):
        parameter.grad = torch.ones_like(parameter) if index % 2 else None
    before, streams = picture(model), RandomStreams()
    capture(model, (batch,), gate=gate)
    assert picture(model) == before
    assert streams == RandomStreams()
    assert torch.equal(batch, kept)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_state_is_put_back_when_forward_raises(error: type[BaseException]) -> None:
    """Half a forward leaves nothing behind."""

    def breaks(self: Part, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.total.add_(1)
        self.seen.append(random.random())
        raise error

    model = Trunk(Part(breaks))
    before, streams = picture(model), RandomStreams()
    with pytest.raises(error):
        capture(model, (x(),))
    assert picture(model) == before
    assert streams == RandomStreams()


def test_state_is_put_back_when_the_recorder_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of ours is a fallback, not damage."""

    def fails(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("planted")

    monkeypatch.setattr(Tape, "argument", fails)
    model = gelu_mlp()
    before = picture(model)
    program = capture(model, (x(),))
    assert program.front_end == "export"
    assert "planted" in program.remarks[0].message
    assert picture(model) == before


def test_input_that_forward_writes_to_is_kept() -> None:
    """Also when the program writes to it, too."""
    model = Trunk(nn.ReLU())
    batch = x()
    program = capture(nn.Sequential(nn.ReLU(inplace=True), model), (batch,))
    assert torch.equal(batch, x())
    assert program.front_end == "symbolic"


def test_gradient_does_not_flow_beyond_the_inputs() -> None:
    """An input that another model made keeps its graph, and that model its gradients."""
    before = nn.Linear(4, 4)
    batch = before(x())
    capture(gelu_mlp(), (batch,))
    assert before.weight.grad is None
    batch.sum().backward()
    assert before.weight.grad is not None


def test_example_does_not_keep_the_caller_s_graph() -> None:
    """The program outlives the call."""
    batch = nn.Linear(4, 4)(x())
    (kept,) = capture(gelu_mlp(), (batch,)).example
    assert kept.grad_fn is None
    assert kept.requires_grad


def test_under_no_grad_and_inference_mode() -> None:
    """The gate has gradients whatever the caller has."""
    model = gelu_mlp()
    with torch.no_grad():
        assert capture(model, (x(),)).front_end == "symbolic"
    with torch.inference_mode():
        assert capture(model, (x(),)).front_end == "symbolic"


def test_optimizers_in_backward_do_not_step() -> None:
    """A post-accumulate hook would train the model; it is silent, and there again afterwards."""
    from tests.capture.models import checkpointed_reentrantly

    model, steps = Trunk(Part(checkpointed_reentrantly)), []
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(steps.append)
    capture(model, (x(),))
    assert steps == []
    model(x()).sum().backward()
    assert steps


def test_version_counters_stay() -> None:
    """A tensor that did not change is not written to: autograd may have saved it."""
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()
    out = model(x())
    capture(model, (x(),))
    out.sum().backward()


def test_preserved_restores_what_the_block_did() -> None:
    """Python's, NumPy's and torch's streams; a generator of the model's own; a container's order."""
    model = Part(lambda self, x: x)
    model.generator = torch.Generator()
    model.names = {"a": 1, "b": 2}
    before = copy.deepcopy(model.generator.get_state())
    streams = RandomStreams()
    with preserved(model, seed=3):
        torch.rand(2, generator=model.generator)
        np.random.rand()
        random.random()
        torch.rand(1)
        model.names["a"] = model.names.pop("a")
        del model.calls
    assert torch.equal(model.generator.get_state(), before)
    assert streams == RandomStreams()
    assert list(model.names) == ["a", "b"]
    assert model.calls == 0


def test_state_names_every_owner_of_a_shared_object() -> None:
    """Nobody knows which of them wrote to it."""
    model = nn.Sequential(Part(lambda self, x: x), Part(lambda self, x: x))
    model[1].statistics = model[0].statistics
    state = ModelState(model)
    model[1].statistics.count += 1
    assert state.restore() == {model[0]: ["statistics"], model[1]: ["statistics"]}
    assert state.restore() == {}
