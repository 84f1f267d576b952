"""One training step of a module, and a record of all that it left behind: the same code on both sides."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from autopar.capture.streams import RandomStreams
from autopar.structure import take_apart

__all__ = [
    "KINDS",
    "Call",
    "LossOf",
    "Record",
    "Tensors",
    "as_record",
    "drawn",
    "gradients_of",
    "outputs_of",
    "run_forward",
    "state_of",
]

Tensors = Mapping[str, torch.Tensor | None]
Record = Mapping[str, Tensors]
Call = tuple[tuple[Any, ...], dict[str, Any]]
LossOf = Callable[[Any], torch.Tensor]

# In the order in which a step makes them: the first that differs is the nearest to the cause.
KINDS = ("outputs", "random numbers", "gradients", "buffers", "parameters")


def run_forward(model: nn.Module, call: Call, seed: int) -> Any:
    """The model's result, with all random streams started at ``seed``."""
    RandomStreams().seed(seed)
    args, kwargs = call
    return model(*args, **kwargs)


def outputs_of(result: Any, loss: torch.Tensor) -> Tensors:
    """Every tensor and number of a result, and the loss."""
    leaves, _ = take_apart(result)
    found: dict[str, torch.Tensor | None] = {"loss": kept(loss)}
    for index, leaf in enumerate(leaves):
        if isinstance(leaf, torch.Tensor):
            found[f"output {index}"] = kept(leaf)
        elif isinstance(leaf, (bool, int, float)):
            found[f"output {index}"] = torch.tensor(leaf)
    return found


def drawn() -> Tensors:
    """Numbers drawn from each random stream: equal where as many were drawn before."""
    return {
        "random numbers of torch": torch.rand(4, dtype=torch.float64),
        "random numbers of Python": torch.tensor([random.random() for _ in range(4)], dtype=torch.float64),
    }


def gradients_of(model: nn.Module) -> Tensors:
    """Copies of all ``.grad``; dense ones of sparse ones."""
    return {name: kept(p.grad) for name, p in model.named_parameters() if p.requires_grad}


def state_of(model: nn.Module) -> Record:
    """Copies of buffers and parameters."""
    return {
        "buffers": {name: kept(buffer) for name, buffer in model.named_buffers()},
        "parameters": {name: kept(parameter) for name, parameter in model.named_parameters()},
    }


def as_record(model: nn.Module, call: Call, loss_of: LossOf, seed: int) -> Record:
    """Forward, loss and backward; what they left behind but for buffers and parameters."""
    model.zero_grad()
    result = run_forward(model, call, seed)
    loss = loss_of(result)
    loss.backward()
    return {"outputs": outputs_of(result, loss), "random numbers": drawn(), "gradients": gradients_of(model)}


def kept(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """A dense copy that nothing changes any more."""
    if tensor is None:
        return None
    tensor = tensor.detach()
    return tensor.clone() if tensor.layout == torch.strided else tensor.coalesce().to_dense()
