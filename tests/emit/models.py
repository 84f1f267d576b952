# ruff: noqa: D102 - what each forward is for stands at its class
"""Small models, each with something that a printer can get wrong."""

from __future__ import annotations

import math
import operator
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils.checkpoint import checkpoint


class Pair(NamedTuple):
    """A named tuple of the user's own."""

    first: Tensor
    second: Tensor


@fx.wrap
def scaled(x: Tensor, factor: float) -> Tensor:
    """A function of the user's that stays one call."""
    return x * factor if x.dim() else x


def look(module: nn.Module, args: Any, output: Any) -> None:
    """A forward hook without effect."""


class Branches(nn.Module):
    """Two branches that meet, with operators of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        left = torch.relu(self.left(x))
        right = -(self.right(x) ** 2)
        x = left + right * 2 - (1.5 - x) / 3
        x += left @ right.t()[:, :4]
        return torch.where((x > 0) & ~(x >= 2), x % 2, x.detach() // 0.5) ** -1.0


class TupleOutput(nn.Module):
    """Returns a tuple with a constant in it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> tuple[Any, ...]:
        q, k, v = self.fc(x).chunk(3, dim=-1)
        return q, [k, None], (v.sum(), "done")


class DictInput(nn.Module):
    """Takes and gives nested structures."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, batch: dict[str, Any], pair: tuple[Tensor, Tensor]) -> dict[str, Any]:
        first, second = pair
        return {"a-b": self.fc(batch["x"]) + first, "rest": {"y": batch["inner"][0] * second}}


class Keywords(nn.Module):
    """Keyword-only arguments, defaults, and names that mean something else in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(
        self, input: Tensor, /, F: Tensor, *, mask: Tensor | None = None, scale: float = 2.0, len: int = 3
    ) -> Tensor:
        out = self.fc(input) * scale + F
        if mask is not None:
            out = out.masked_fill(mask, -math.inf)
        max = out[..., :len]
        return max.softmax(dim=-1)


class Tied(nn.Module):
    """One weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embed(tokens))


class Nested(nn.Module):
    """Sequential, ModuleList and ModuleDict, with convolution, batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Sequential(nn.ReLU()))
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.heads = nn.ModuleDict({"a": nn.Linear(4, 2), "b c": nn.Linear(4, 2)})
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.net(x), 1).flatten(1)
        for block in self.blocks:
            x = x + block(x)
        return self.heads["a"](self.drop(x)) + self.heads["b c"](x)


class ControlFlow(nn.Module):
    """Cannot be traced: its path depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) if x.sum() > 0 else -self.fc(x)


class WithOpaque(nn.Module):
    """An opaque module, a recurrent one and a plain tensor attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.rnn, self.out = ControlFlow(), nn.GRU(4, 4, batch_first=True), nn.Linear(4, 2)
        self.rnn.register_forward_hook(look)  # hooks run in eager code only
        self.register_buffer("offset", torch.arange(4.0))
        self.plain = torch.full((4,), 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x) + self.offset
        h, _ = self.rnn(x.unsqueeze(1))
        return self.out(h.squeeze(1) * self.plain)


class UnusualNames(nn.Module):
    """Names that are no identifiers."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module("a-b", nn.Linear(4, 4))
        self.add_module("b c", ControlFlow())
        self.weights = nn.ParameterDict({"a-b": torch.ones(4)})

    def forward(self, x: Tensor) -> Tensor:
        for name in ("a-b", "b c"):
            x = getattr(self, name)(x)
        return x * self.weights["a-b"]


class OddNames(nn.Module):
    """Names that no Python source can hold as they are."""

    INJECTION = 'x");import os;("'

    def __init__(self) -> None:
        super().__init__()
        self.add_module(self.INJECTION, nn.Linear(4, 4))
        self.add_module("new\nline", nn.Linear(4, 4))
        self.weights = nn.ParameterDict({self.INJECTION: torch.ones(4), "ﬁ": torch.ones(4)})
        self.register_parameter("lambda", nn.Parameter(torch.ones(4)))

    def forward(self, x: Tensor) -> Tensor:
        for name in (self.INJECTION, "new\nline"):
            x = getattr(self, name)(x)
        return x * self.weights[self.INJECTION] + self.weights["ﬁ"] - getattr(self, "lambda")


class Calls(nn.Module):
    """Functions of many homes, and arguments of many kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> OrderedDict[str, Any]:
        x = F.gelu(self.fc(x), approximate="tanh")
        x = torch.clamp(x, min=-math.inf, max=math.inf).to(torch.float64).to(dtype=torch.float32)
        x = torch.cat([x, x.new_zeros(x.shape[0], 2)], dim=-1)
        x = x[:, 1::2] + x[..., :3] * math.sqrt(operator.add(x.size(1), 3))
        x = torch.linalg.norm(x, dim=(-1,), keepdim=True) + torch.fft.fft(x).real + torch.special.expit(x)
        x = torch.mul(x, 2).contiguous(memory_format=torch.contiguous_format)
        x = F.pad(x, (0, 1), value=float("inf")).clamp(max=5.0)
        noise = torch.rand(4, device=torch.device("cpu"))
        return OrderedDict(x=scaled(x, 0.5) + noise, pair=Pair(first=x, second=x.mean()))


class InPlace(nn.Module):
    """Changes values where they are."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        z = y.clone()
        z.add_(y)
        torch.relu(y)
        return z * y


class Stars(nn.Module):
    """Takes any number of arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, *tensors: Tensor, **named: Tensor) -> Tensor:
        return self.fc(tensors[0] + tensors[1]) * named["factor"]


@dataclass
class Record:
    """A structure that no pytree knows."""

    x: Tensor


class OpaqueRoot(nn.Module):
    """Stays opaque as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Record:
        return Record(self.fc(x).tanh())


class Block(nn.Module):
    """A block of a user's own class."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)

    def forward(self, hidden: Tensor) -> Tensor:
        y = self.fc(hidden)
        return self.norm(y) + hidden


class Stack(nn.Module):
    """Blocks of the user's own class."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Trained(nn.Module):
    """A batch norm, dropout and a counter, which operators of torch.export write to by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm = nn.Linear(4, 8), nn.BatchNorm1d(8)
        self.register_buffer("steps", torch.zeros(1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.steps.add_(1)
        hidden = F.dropout(self.norm(self.fc(x)), training=self.training)
        return {"out": hidden.view(x.shape[0] * 2, -1), "steps": self.steps + 0}


def x(*shape: int) -> Tensor:
    """A tensor that is the same in every process."""
    return torch.randn(shape or (3, 4), generator=torch.Generator().manual_seed(0))


class Checkpointed(nn.Module):
    """Layers that backward computes again, one of them opaque; the variable is taken anew in between."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)) for _ in range(2))
        self.hooked = nn.Linear(4, 4)
        self.hooked.register_forward_hook(look)

    def forward(self, x: Tensor) -> Tensor:
        shift = x.mean()
        for layer in self.layers:
            x = checkpoint(lambda h, layer=layer, shift=shift: torch.relu(layer(h)) + shift, x, use_reentrant=False)
            shift = shift * 2
        x = checkpoint(self.twice, x, use_reentrant=False, preserve_rng_state=False)
        return x * shift

    def twice(self, x: Tensor) -> Tensor:
        y = torch.sin(self.hooked(x))
        return y * y


CASES: dict[str, tuple[type[nn.Module], tuple[Any, ...], dict[str, Any]]] = {
    "branches": (Branches, (x(4, 4),), {}),
    "tuple-output": (TupleOutput, (x(),), {}),
    "dict-input": (DictInput, ({"x": x(), "inner": [x(), 2]}, (x(), x())), {}),
    "keywords": (Keywords, (x(), x(4)), {"mask": x() > 1, "len": 2}),
    "keywords-default": (Keywords, (x(),), {"F": x(4)}),
    "tied": (Tied, (torch.tensor([[1, 6, 0], [2, 2, 3]]),), {}),
    "nested": (Nested, (x(3, 2, 5, 5),), {}),
    "opaque-part": (WithOpaque, (x(),), {}),
    "unusual-names": (UnusualNames, (x(),), {}),
    "calls": (Calls, (x(),), {}),
    "checkpointed": (Checkpointed, (x(),), {}),
    "in-place": (InPlace, (x(),), {}),
    "stars": (Stars, (x(), x()), {"factor": x(4)}),
    "opaque-root": (OpaqueRoot, (x(),), {}),
    "stack": (Stack, (x(),), {}),
}
