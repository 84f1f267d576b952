"""One training step of a model of the zoo, and what it leaves behind."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.libraries import prepare
from tests.zoo.entry import Call, Entry

__all__ = ["Step", "build", "make_inputs", "run_step", "seed_all"]


@dataclass(frozen=True, slots=True)
class Step:
    """What a step left behind: the loss, gradients and buffers, and numbers drawn afterwards from each stream."""

    loss: torch.Tensor
    gradients: dict[str, torch.Tensor | None]
    buffers: dict[str, torch.Tensor | None]
    draws: dict[str, torch.Tensor | None]


def seed_all(seed: int) -> None:
    """Starts the random streams of torch, NumPy and Python anew."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def build(entry: Entry) -> nn.Module:
    """The model in train mode, always with the same numbers.

    What starts at zero does not here: a head of zeros would hide the gradients of everything before it.
    """
    prepare()
    warnings.filterwarnings("ignore")  # of the libraries
    seed_all(0)
    model = entry.build().train()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    return model


def make_inputs(entry: Entry, size: int, seed: int) -> Call:
    """A call for ``size`` samples."""
    seed_all(seed)
    return entry.inputs(size)


def run_step(
    entry: Entry, model: nn.Module, inputs: Call, seed: int, forward: Callable[..., Any] | None = None
) -> Step:
    """Forward, loss and backward; the gradients of the step before are dropped first.

    Args:
        entry: says how the loss is taken.
        model: whose gradients and buffers are kept.
        inputs: the call.
        seed: of the random streams at its beginning, for dropout.
        forward: what to call instead of the model, such as a wrapper around it.
    """
    model.zero_grad()
    seed_all(seed)
    args, kwargs = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
    loss = entry.loss((forward or model)(*args, **kwargs))
    loss.backward()
    return Step(
        loss=loss.detach().clone(),
        gradients={f"gradient of {n}": _copy(p.grad) for n, p in model.named_parameters() if p.requires_grad},
        buffers={f"buffer {n}": _copy(b) for n, b in model.named_buffers()},
        draws={
            "torch's random numbers": torch.rand(4),
            "NumPy's random numbers": torch.from_numpy(np.random.rand(4)),
            "Python's random numbers": torch.tensor([random.random() for _ in range(4)], dtype=torch.float64),
        },
    )


def _copy(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.detach().clone()
