"""What is right passes: bit for bit against the parts, within rounding against the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import autopar
from tests.verification.models import (
    MLP,
    Contrastive,
    Language,
    NotFinite,
    Opaque,
    OwnLoss,
    SumLoss,
    batch_norm,
    dropout,
)

MODELS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "mlp": (MLP, torch.ones(6, 6).cumsum(0)),
    "batch norm": (batch_norm, torch.arange(48.0).sin().view(8, 6)),
    "dropout": (dropout, torch.arange(48.0).sin().view(8, 6)),
    "language": (Language, torch.arange(20).view(4, 5) % 17),
    "opaque": (Opaque, torch.arange(48.0).sin().view(8, 6)),
    "own loss": (OwnLoss, {"x": torch.arange(48.0).sin().view(8, 6), "labels": torch.arange(8) % 3}),
}


# A count of calls is one higher for each part, so the opaque model's batch cannot be split over replicas.
CASES = [(name, "ddp") for name in MODELS] + [(name, "data_parallel") for name in MODELS if name != "opaque"]


@pytest.mark.parametrize(("name", "strategy"), CASES)
def test_healthy_model(name: str, strategy: str) -> None:
    """Outputs, random numbers, gradients, buffers and parameters have the plain training's bits."""
    factory, inputs = MODELS[name]
    report = autopar.verify(factory, inputs, strategy, steps=2).require()
    assert report
    kinds = {check.kind for check in report.checks}
    assert {"outputs", "random numbers", "gradients", "parameters"} <= kinds
    assert ("buffers" in kinds) == (name == "batch norm")
    exact = [check for check in report.checks if check.against != "the whole batch"]
    assert all(check.largest == 0.0 and check.values > 0 for check in exact)


def test_whole_batch_within_rounding() -> None:
    """The bound is stated, small, and not reached."""
    (check,) = [c for c in autopar.verify(MLP, torch.randn(8, 6)).checks if c.against == "the whole batch"]
    assert check.ok
    assert 0 < check.largest <= check.allowed < 1e-4
    assert check.rule == "8 x its rounding error"


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        (batch_norm, "1 (BatchNorm1d) takes statistics of the samples that it sees"),
        (dropout, "draws random numbers"),
        (SumLoss, "Its loss is a sum over samples, and ranks average"),
        (Contrastive, "mixes the samples of a batch"),
        (NotFinite, "the gradient of fc.weight is not finite"),
    ],
)
def test_why_the_whole_batch_is_not_compared(factory: Callable[[], nn.Module], reason: str) -> None:
    """One sentence; the parts are compared all the same."""
    report = autopar.verify(factory, torch.randn(8, 6), steps=1).require()
    assert not [check for check in report.checks if check.against == "the whole batch"]
    (note,) = report.notes
    assert reason in note


def test_three_ranks() -> None:
    """Sums of three terms may be rounded otherwise, within a stated slack; what follows from them may not."""
    torch.manual_seed(0)
    report = autopar.verify(MLP, torch.randn(10, 6), nproc=3, optimizer="sgd", steps=2).require()
    rules = {check.kind: check.rule for check in report.checks if check.against != "the whole batch"}
    assert rules["gradients"] == "2 eps x sum of terms"
    assert rules["parameters"] == "equal bits"
    assert report.samples == 9
    assert "1 samples are left out" in report.notes[0]


def test_the_model_in_hand_is_left_as_it_is() -> None:
    """Values, gradients, random streams and the number of threads."""
    torch.manual_seed(0)
    model = MLP()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inputs, drawn, threads = torch.randn(4, 6), torch.get_rng_state(), torch.get_num_threads()
    assert autopar.verify(model, inputs, steps=1).ok
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), drawn)
    assert torch.get_num_threads() == threads
