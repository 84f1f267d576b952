"""Models and programs that the tests of passes share."""

# ruff: noqa: D102 - a forward is what its class says

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from autopar.capture.ladder import capture
from autopar.passes.base import PassContext
from autopar.passes.pipeline import build, parse
from autopar.passes.runner import run_pipeline
from autopar.program import Program
from tests.opaque import kept_whole


class MLP(nn.Module):
    """Three layers in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.third(F.relu(self.second(F.relu(self.first(x)))))


class Residual(nn.Module):
    """Layer norms, and two ways around each layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(4) for _ in range(2))
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + torch.tanh(layer(norm(x)))
        return self.head(x)


class Branches(nn.Module):
    """Two branches of different length that meet, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.short = nn.Linear(4, 4)
        self.long = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self.side = nn.Linear(4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.stem(x)
        side = self.side(x)
        return {"main": self.head(self.short(x) + self.long(x)), "side": side}


class Shared(nn.Module):
    """One layer used before and after another."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.between, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.shared(self.between(self.shared(x))))


class Tied(nn.Module):
    """A language model whose head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.body = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.LayerNorm(4))
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.embed(ids)))


class Recurrent(nn.Module):
    """An LSTM, which stays whole, between layers that do not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.lstm, self.last = nn.Linear(4, 4), kept_whole(nn.LSTM(4, 4)), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.lstm(self.first(x))[0])


class Filled(nn.Module):
    """A tensor is filled in place by layers, and read under its first name."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(4, 2), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.zeros_like(x)
        y[:, :2] = self.left(x)
        y.narrow(1, 2, 2).copy_(self.right(x))
        return self.head(y)


class AsksForDtype(nn.Module):
    """Reads sizes and dtypes of late parameters early, as many libraries do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.to(self.head.weight.dtype) / self.head.weight.shape[0]
        return self.head(self.second(self.first(x)))


class Unused(nn.Module):
    """A layer whose result is dropped, one behind a detach, and one never called."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.dropped, self.cut, self.never = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.dropped(x)
        return self.used(x) + self.cut(x).detach()


MODELS: dict[str, tuple[type[nn.Module], torch.Tensor]] = {
    "mlp": (MLP, torch.ones(3, 4)),
    "residual": (Residual, torch.ones(3, 4)),
    "branches": (Branches, torch.ones(3, 4)),
    "shared": (Shared, torch.ones(3, 4)),
    "tied": (Tied, torch.tensor([[1, 2, 3]])),
    "recurrent": (Recurrent, torch.ones(3, 4)),
    "filled": (Filled, torch.ones(3, 4)),
    "dtype": (AsksForDtype, torch.ones(3, 4)),
    "unused": (Unused, torch.ones(3, 4)),
}

DDP = "inline-modules,shapes,backward-order,bucket{cap_mb=0},ddp-sync"


def compiled(model: nn.Module, pipeline: str, *args: Any, **context: Any) -> Program:
    """The model, captured on a call and taken through a pipeline."""
    program, _ = run_pipeline(capture(model, args), build(parse(pipeline)), PassContext(**context))
    return program


def outputs(program: Program, *inputs: torch.Tensor) -> list[torch.Tensor]:
    """The flat outputs of a program whose parameters are not lifted."""
    program.graph_module.recompile()
    return list(program.graph_module(*inputs))


def ddp(name: str, *, cap: float = 0) -> Program:
    """One of the models after synchronisation nodes were put in."""
    torch.manual_seed(0)
    cls, batch = MODELS[name]
    return compiled(cls(), DDP.replace("cap_mb=0", f"cap_mb={cap}"), batch)
