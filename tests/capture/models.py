"""Small models for capture: each one does one thing that a graph can or cannot hold."""

# ruff: noqa: D102 - a forward is what its class says

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from autopar.capture.ladder import capture
from autopar.program import Program


class Trunk(nn.Module):
    """Two layers around a middle part; everything that is tried stands in the middle."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.middle = middle
        self.last = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.middle(self.first(x)))


class Part(nn.Module):
    """A module with a weight, a buffer and some attributes, whose forward is a given function."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.function = forward
        self.fc = nn.Linear(4, 4)
        self.weight = nn.Parameter(torch.full((4,), 0.5))
        self.register_buffer("total", torch.zeros(4))
        self.plain = torch.ones(4)
        self.calls = 0
        self.seen: list[Any] = []
        self.nested: dict[str, list[Any]] = {"seen": []}
        self.statistics = Statistics()
        self.last_input: Any = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


class Statistics:
    """A plain object that counts."""

    def __init__(self) -> None:
        self.count = 0


class Scale(torch.autograd.Function):
    """A custom function whose gradient is not what its forward suggests."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * 3


class Reverse(torch.autograd.Function):
    """Gradient reversal: its forward records no operation at all."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return -gradient


reverse = Reverse.apply  # bound before anybody could watch


class Pair(NamedTuple):
    """A namedtuple output."""

    left: torch.Tensor
    right: torch.Tensor


def branches_on_values(self: Part, x: torch.Tensor) -> torch.Tensor:
    """Python control flow on a tensor."""
    if x.sum() > 0:
        return self.fc(x)
    return -self.fc(x)


def without_gradients(self: Part, x: torch.Tensor) -> torch.Tensor:
    """A no_grad block."""
    with torch.no_grad():
        offset = x * 2
    return self.fc(x) + offset


def in_autocast(self: Part, x: torch.Tensor) -> torch.Tensor:
    """An autocast block."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return self.fc(x).float()


def custom_function(self: Part, x: torch.Tensor) -> torch.Tensor:
    """A custom autograd function."""
    return Scale.apply(self.fc(x))


def bound_custom_function(self: Part, x: torch.Tensor) -> torch.Tensor:
    """A custom autograd function whose apply was bound at import."""
    return reverse(self.fc(x))


def checkpointed(self: Part, x: torch.Tensor) -> torch.Tensor:
    """Checkpointing by saved-tensor hooks."""
    return checkpoint(self.fc, x, use_reentrant=False)


def checkpointed_in_checkpoint(self: Part, x: torch.Tensor) -> torch.Tensor:
    """One checkpoint inside another."""
    return checkpoint(lambda x: checkpoint(self.fc, x, use_reentrant=False) + 1, x, use_reentrant=False)


def checkpointed_selectively(self: Part, x: torch.Tensor) -> torch.Tensor:
    """A checkpoint with contexts of its own."""
    return checkpoint(self.fc, x, use_reentrant=False, context_fn=lambda: (nullcontext(), nullcontext()))


def packed(self: Part, x: torch.Tensor) -> torch.Tensor:
    """Saved-tensor hooks of the user's own."""
    with torch.autograd.graph.save_on_cpu():
        return self.fc(x)


def checkpointed_reentrantly(self: Part, x: torch.Tensor) -> torch.Tensor:
    """Checkpointing by a backward within backward."""
    return checkpoint(self.fc, x, use_reentrant=True)


def writes_buffer(self: Part, x: torch.Tensor) -> torch.Tensor:
    """An in-place write to a buffer."""
    self.total.add_(x.detach().sum(0))
    return self.fc(x) + self.total


def writes_buffer_through_view(self: Part, x: torch.Tensor) -> torch.Tensor:
    """An in-place write to a part of a buffer."""
    self.total[:2].copy_(x.detach()[0, :2])
    return self.fc(x) + self.total


def writes_item_of_buffer(self: Part, x: torch.Tensor) -> torch.Tensor:
    """An item assignment to a buffer."""
    self.total[0] = x.detach().sum()
    return self.fc(x) + self.total


def replaces_buffer(self: Part, x: torch.Tensor) -> torch.Tensor:
    """A buffer is bound anew."""
    self.total = self.total + x.detach().sum(0)
    return self.fc(x) + self.total


def assigns_data(self: Part, x: torch.Tensor) -> torch.Tensor:
    """``.data`` is assigned."""
    self.total.data = self.total + 1
    return self.fc(x) + self.total


def writes_plain_tensor(self: Part, x: torch.Tensor) -> torch.Tensor:
    """A tensor that is neither parameter nor buffer is written to."""
    self.plain.add_(1)
    return self.fc(x) + self.plain


def clamps_weight(self: Part, x: torch.Tensor) -> torch.Tensor:
    """A parameter is written to."""
    with torch.no_grad():
        self.weight.clamp_(max=0.25)
    return self.fc(x) * self.weight


def counts(self: Part, x: torch.Tensor) -> torch.Tensor:
    """An attribute counts."""
    self.calls += 1
    return self.fc(x) * self.calls


def counts_in_object(self: Part, x: torch.Tensor) -> torch.Tensor:
    """An attribute of a plain object counts."""
    self.statistics.count += 1
    return self.fc(x)


def appends(self: Part, x: torch.Tensor) -> torch.Tensor:
    """A list grows."""
    self.seen.append(x)
    return self.fc(x)


def appends_nested(self: Part, x: torch.Tensor) -> torch.Tensor:
    """A list in a dict grows."""
    self.nested["seen"].append(x)
    return self.fc(x)


def remembers(self: Part, x: torch.Tensor) -> torch.Tensor:
    """An attribute takes a tensor."""
    self.last_input = x
    return self.fc(x)


def draws_in_python(self: Part, x: torch.Tensor) -> torch.Tensor:
    """Python's random numbers choose a branch."""
    return self.fc(x) if random.random() < 0.5 else -self.fc(x)


def computes_outside(self: Part, x: torch.Tensor) -> torch.Tensor:
    """A tensor is computed from an attribute that is no buffer."""
    return self.fc(x) * (self.plain * 3)


def needs_size(self: Part, x: torch.Tensor) -> torch.Tensor:
    """A loop over a size."""
    return torch.stack([self.fc(x[i]) for i in range(x.shape[0])])


REFUSED = {
    branches_on_values: "control flow depends on a tensor",
    in_autocast: "changes how operations run",
    bound_custom_function: "custom autograd function",
    packed: "saved-tensor hooks",
    checkpointed_in_checkpoint: "a checkpoint inside another",
    checkpointed_selectively: "a checkpoint with contexts of its own",
    checkpointed_reentrantly: "custom autograd function",
    writes_buffer: "writes to 'middle.total' in place",
    writes_buffer_through_view: "writes to 'middle.total' in place",
    writes_item_of_buffer: "writes to 'middle.total' in place",
    replaces_buffer: "changes the attribute 'total'",
    assigns_data: "assigns the attribute 'data' of a tensor",
    writes_plain_tensor: "writes to 'middle.plain' in place",
    clamps_weight: "writes to 'middle.weight' in place",
    counts: "changes the attribute 'calls'",
    counts_in_object: "changes the attribute 'statistics'",
    appends: "changes the attribute 'seen'",
    appends_nested: "changes the attribute 'nested'",
    remembers: "changes the attribute 'last_input'",
    draws_in_python: "draws random numbers that no graph shows",
}
"""What a region may not do, with a part of the reason that is given."""

OPENED = (without_gradients, custom_function, computes_outside, needs_size, checkpointed)
"""What looks as if it could not be a graph, and can."""


class Mapped(nn.Module):
    """Takes nested inputs and keywords, returns a nested structure with constants."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, batch: dict[str, Any], scale: float = 1.0, *, mask: torch.Tensor | None = None) -> Any:
        x = self.fc(batch["x"]) * scale + batch["more"][0]
        if mask is not None:
            x = x * mask
        return {"pair": Pair(x, -x), "none": None, "count": 3, "list": [x.sum()]}


def x(rows: int = 3) -> torch.Tensor:
    """The input of most models here."""
    return torch.linspace(-1.0, 1.0, rows * 4).reshape(rows, 4)


def run(program: Program, *args: Any, **kwargs: Any) -> Any:
    """Runs a captured program on a call as its users would."""
    signature = program.signature
    return signature.unflatten(program.graph_module(*signature.flatten(args, kwargs)))


def opaque_paths(program: Program) -> list[str]:
    """Paths of the modules that stay whole for a reason, from the remarks."""
    return [remark.module_path for remark in program.remarks if remark.kind == "missed"]


def captured(middle: Callable[..., Any]) -> Program:
    """A trunk whose middle does one thing, captured."""
    return capture(Trunk(Part(middle)), (x(),))


def gelu_mlp() -> nn.Module:
    """A model that is captured without remarks."""
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))


def dropout(values: torch.Tensor) -> torch.Tensor:
    """Functional dropout, always on."""
    return F.dropout(values, 0.5, training=True)
