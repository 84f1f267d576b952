"""What ``shapes`` writes down is what ran."""

# ruff: noqa: D102 - a forward is what its class says

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from autopar.capture.ladder import capture
from autopar.passes.base import PassContext
from autopar.passes.preserving.shapes import Shapes
from autopar.program import info
from tests.passes.programs import MLP, Recurrent, compiled


def test_nodes_know_their_tensors() -> None:
    """Shape, dtype, device, bytes and FLOPs of the output; bytes of the parameters that are read."""
    program = compiled(MLP(), "inline-modules,shapes", torch.ones(3, 4))
    first = next(program.find("call_function", F.linear))
    noted = info(first)
    assert (noted.shape, noted.dtype, noted.device) == ((3, 8), "float32", "cpu")
    assert (noted.nbytes, noted.flops, noted.param_bytes) == (3 * 8 * 4, 2 * 3 * 4 * 8, 0)
    weight = info(next(program.find("get_attr", "first.weight")))
    assert (weight.nbytes, weight.param_bytes, weight.flops) == (128, 128, 0)


def test_opaque_call_counts_the_parameters_inside() -> None:
    """And has no single shape when it returns a tuple."""
    program = compiled(Recurrent(), "inline-modules,shapes", torch.ones(3, 4))
    noted = info(next(program.find("call_module")))
    assert noted.param_bytes == 4 * (16 * 4 * 2 + 16 * 2)
    assert noted.shape is None
    assert noted.nbytes == 4 * (3 * 4 + 4 + 4)


def test_frozen_parameter_is_no_parameter() -> None:
    """Its bytes are memory, not gradients."""
    model = MLP()
    model.first.weight.requires_grad_(False)
    program = compiled(model, "inline-modules,shapes", torch.ones(3, 4))
    assert info(next(program.find("get_attr", "first.weight"))).param_bytes == 0


class Products(nn.Module):
    """Einsum, matmul, baddbmm."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.einsum("bhij,bhkj->bhik", x, x) @ x
        return torch.baddbmm(y[:, 0], x[:, 0] @ x[:, 0].mT, y[:, 0])


FLOPS: dict[str, tuple[nn.Module, torch.Tensor]] = {
    "linear": (nn.Linear(3, 4), torch.ones(2, 3)),
    "linear-3d": (nn.Linear(3, 4, bias=False), torch.ones(2, 5, 3)),
    "linear-1d": (nn.Linear(3, 4), torch.ones(3)),
    "conv": (nn.Conv2d(4, 4, 3, stride=2, groups=2), torch.ones(2, 4, 6, 6)),
    "conv-transpose": (nn.ConvTranspose2d(4, 4, 3, stride=2), torch.ones(2, 4, 6, 6)),
    "bilinear": (nn.Bilinear(3, 3, 4), torch.ones(2, 3)),
    "products": (Products(), torch.rand(2, 2, 3, 3)),
    "mha": (nn.TransformerEncoderLayer(4, 2, 8), torch.ones(3, 2, 4)),
    "lstm": (nn.LSTM(4, 4), torch.ones(3, 2, 4)),
    "gru": (nn.GRU(4, 4, bidirectional=True), torch.ones(3, 2, 4)),
    "relu": (nn.ReLU(), torch.ones(3, 2, 4)),
}


class Last(nn.Module):
    """Calls a module that may return a tuple, or take its input twice."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.scale = inner, nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.inner(x, x) if isinstance(self.inner, nn.Bilinear) else self.inner(x)
        return (out[0] if isinstance(self.inner, nn.RNNBase) else out) * self.scale


@pytest.mark.parametrize("pipeline", ["shapes", "inline-modules,shapes"])
@pytest.mark.parametrize(("module", "batch"), FLOPS.values(), ids=list(FLOPS))
def test_flops_are_those_of_torch_s_counter(module: nn.Module, batch: torch.Tensor, pipeline: str) -> None:
    """Exactly, for everything that torch has a formula for, opened or not."""
    model = Last(module)
    program = compiled(model, pipeline, batch)
    with FlopCounterMode(display=False) as counter:
        model(batch)
    assert sum(info(node).flops for node in program.graph.nodes) == counter.get_total_flops()
    assert f"{counter.get_total_flops():,} FLOPs" in program.remarks[-1].message


class Attention(nn.Module):
    """One call of torch's fused attention."""

    def forward(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(query, key, key, is_causal=True)


def test_attention_on_a_cpu_is_counted() -> None:
    """Two products of 8 x 6 heads, 128 queries and 100 keys of 64 elements; torch's own counter leaves them out."""
    sample = torch.randn(8, 6, 128, 64, requires_grad=True), torch.randn(8, 6, 100, 64)
    program = compiled(Attention(), "shapes", *sample)
    assert sum(info(node).flops for node in program.graph.nodes) == 2 * (2 * 8 * 6 * 128 * 100 * 64)


class Structured(nn.Module):
    """An opaque root with keywords and nested inputs, which asks for gradients inside."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, batch: dict[str, torch.Tensor], *, scale: float) -> torch.Tensor:
        out = self.fc(batch["x"]) * scale
        out.register_hook(lambda gradient: gradient * 2)
        return out if out.sum() > 0 else -out


def test_opaque_root_runs_in_the_structure_of_the_call() -> None:
    """With gradients enabled, and without the root's hooks."""
    model = Structured()
    model.register_forward_pre_hook(lambda *_: pytest.fail("a hook of the user's was run"))
    program = Shapes().run(capture(model, ({"x": torch.ones(3, 4)},), {"scale": 2.0}), PassContext()).program
    assert program.front_end == "opaque"
    (call,) = program.find("call_module")
    assert (info(call).shape, info(call).flops) == ((3, 2), 2 * 3 * 4 * 2)


class Opened(nn.Module):
    """Takes an object."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor, cache: Any) -> torch.Tensor:
        cache.append(x)
        return self.fc(x)


def test_call_with_foreign_objects_is_not_run() -> None:
    """They are not kept; the remark says that sizes are unknown."""

    class Cache(list[Any]):
        pass

    cache = Cache()
    program = capture(Opened(), (torch.ones(3, 4), cache))
    result = Shapes().run(program, PassContext())
    assert "unknown" in result.remarks[0].message
    assert cache == []


def test_the_model_is_left_as_it_was() -> None:
    """Statistics and random numbers."""
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
    program = capture(model, (torch.ones(3, 4),))
    state = torch.get_rng_state()
    Shapes().run(program, PassContext())
    assert model[1].num_batches_tracked == 0
    assert torch.equal(torch.get_rng_state(), state)
