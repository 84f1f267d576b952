"""Small models of every kind that data parallelism must get right, with a batch for each rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.capture.islands import Model, Nested

__all__ = ["ZOO", "Entry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A model and how it is fed.

    Attributes:
        build: makes the model; its random numbers come from the seed that is set then.
        batch: makes one rank's positional arguments.
        loss: of the model's result.
        ddp: arguments that torch's DistributedDataParallel needs for this model.
    """

    build: Callable[[], nn.Module]
    batch: Callable[[], tuple[Any, ...]]
    loss: Callable[[Any], torch.Tensor] = lambda result: result.square().mean()
    ddp: Mapping[str, Any] = field(default_factory=dict)


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3))


def _rows() -> tuple[torch.Tensor]:
    return (torch.randn(5, 6),)


class ConvNet(nn.Module):
    """Convolutions with batch normalisation, whose buffers forward writes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(images)))
        x = F.relu(self.bn2(self.conv2(x)) + x)
        return self.head(x.mean(dim=(2, 3)))


class Block(nn.Module):
    """A transformer block with dropout."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Dropout(0.2), nn.Linear(2 * dim, dim))
        self.drop = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        x = x + self.drop(self.proj(F.scaled_dot_product_attention(q, k, v, is_causal=True)))
        return x + self.mlp(self.norm2(x))


class TiedLM(nn.Module):
    """Embedding and head share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.body = nn.Linear(8, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.body(self.embed(tokens))))


class Gate(nn.Module):
    """Python control flow on a value: no tracer sees through it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        return self.b(x) if float(x.detach().abs().sum()) > 0.0 else self.b(-x)


class WithGate(nn.Module):
    """A traceable model around an opaque submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Linear(6, 8), Gate(), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.gate(torch.relu(self.first(x))))


class WholeOpaque(nn.Module):
    """The root itself cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
            if float(x.detach().sum()) < -1.0:
                x = -x
        return x


class LSTMTagger(nn.Module):
    """A recurrent network."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(6, 8, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0])


class Attention(nn.Module):
    """nn.MultiheadAttention, whose weights are used without calling its projections."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attend, self.head = (
            nn.Linear(6, 8),
            nn.MultiheadAttention(8, 2, batch_first=True),
            nn.Linear(8, 2),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        return self.head(self.attend(x, x, x, need_weights=False)[0])


class MixedDtypes(nn.Module):
    """Parameters of three dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.fp32 = nn.Linear(6, 8)
        self.fp64 = nn.Linear(8, 8).double()
        self.bf16 = nn.Linear(8, 8).bfloat16()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fp32(x)
        return self.bf16(self.fp64(x.double()).bfloat16()).float()


class Shapes(nn.Module):
    """0-dim, empty and frozen parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.nothing = nn.Parameter(torch.empty(0, 6))
        self.fixed = nn.Parameter(torch.randn(6), requires_grad=False)
        self.fc = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.cat([x * self.scale + self.fixed, self.nothing]))


class Complex(nn.Module):
    """Complex parameters, as spectral layers have."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.randn(4, dtype=torch.complex64))
        self.fc = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.fft.irfft(torch.fft.rfft(x) * self.filter, n=6))


class Checkpointed(nn.Module):
    """A submodule that is run again inside backward."""

    def __init__(self, *, use_reentrant: bool) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(6, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh()), nn.Linear(8, 2)
        self.use_reentrant = use_reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.last(checkpoint(self.middle, x, use_reentrant=self.use_reentrant))


class _CheckpointedBlock(nn.Module):
    def __init__(self, *, use_reentrant: bool) -> None:
        super().__init__()
        self.inner, self.use_reentrant = nn.Sequential(nn.Linear(8, 8), nn.Tanh()), use_reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.inner, x, use_reentrant=self.use_reentrant)


class CheckpointedInside(nn.Module):
    """Checkpointing in submodules, between layers that are traced."""

    def __init__(self, *, use_reentrant: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 2)
        self.blocks = nn.ModuleList(_CheckpointedBlock(use_reentrant=use_reentrant) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x)


class TwoHeads(nn.Module):
    """Returns a dict of two outputs, of which a loss may use one."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.left, self.right = nn.Linear(6, 8), nn.Linear(8, 2), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = torch.relu(self.body(x))
        return {"left": self.left(x), "right": self.right(x)}


class Reused(nn.Module):
    """One layer used three times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = torch.tanh(self.layer(x))
        return self.head(x)


class Huge(nn.Module):
    """Parameters of more than 4 MiB, two of which get one and the same gradient tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 1040)
        self.big = nn.Linear(1040, 1040)
        self.one, self.other = (nn.Parameter(torch.randn(1040, 1040) * 0.01) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.big(self.fc(x)))
        return F.linear(x, self.one + self.other)


def _frozen() -> nn.Module:
    model = _mlp()
    model[0].requires_grad_(False)  # type: ignore[index]
    return model


def _tokens() -> tuple[torch.Tensor]:
    return (torch.randint(20, (4, 7)),)


class SparseEmbedding(nn.Module):
    """An embedding with sparse gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(30, 4, sparse=True), nn.Linear(4, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, time) to (batch, time, 2)."""
        logits: torch.Tensor = self.head(self.embed(tokens))
        return logits


ZOO: dict[str, Entry] = {
    "sparse": Entry(build=SparseEmbedding, batch=_tokens),
    "mlp": Entry(build=_mlp, batch=_rows),
    "conv_bn": Entry(build=ConvNet, batch=lambda: (torch.randn(4, 3, 8, 8),)),
    "channels_last": Entry(
        build=lambda: ConvNet().to(memory_format=torch.channels_last),
        batch=lambda: (torch.randn(4, 3, 8, 8).to(memory_format=torch.channels_last),),
    ),
    "transformer": Entry(build=lambda: nn.Sequential(Block(), Block()), batch=lambda: (torch.randn(2, 5, 16),)),
    "tied": Entry(
        build=TiedLM, batch=_tokens, loss=lambda x: F.cross_entropy(x.flatten(0, 1), x.detach().argmax(-1).flatten())
    ),
    "opaque_submodule": Entry(build=WithGate, batch=_rows),
    "opaque_whole": Entry(build=WholeOpaque, batch=_rows),
    "islands": Entry(build=lambda: Model(Nested()), batch=lambda: (torch.randn(5, 4),)),
    "lstm": Entry(build=LSTMTagger, batch=lambda: (torch.randn(2, 4, 6),)),
    "attention": Entry(build=Attention, batch=lambda: (torch.randn(2, 4, 6),)),
    "mixed_dtypes": Entry(build=MixedDtypes, batch=_rows),
    "frozen": Entry(build=_frozen, batch=_rows),
    "scalar_and_empty": Entry(build=Shapes, batch=_rows),
    "complex": Entry(build=Complex, batch=_rows),
    "checkpoint": Entry(build=lambda: Checkpointed(use_reentrant=False), batch=_rows),
    "checkpoint_reentrant": Entry(build=lambda: Checkpointed(use_reentrant=True), batch=_rows),
    "checkpoint_inside": Entry(build=lambda: CheckpointedInside(use_reentrant=False), batch=_rows),
    "checkpoint_inside_reentrant": Entry(build=lambda: CheckpointedInside(use_reentrant=True), batch=_rows),
    "one_of_two_heads": Entry(
        build=TwoHeads,
        batch=_rows,
        loss=lambda result: result["left"].square().mean(),
        ddp={"find_unused_parameters": True},
    ),
    "both_heads": Entry(build=TwoHeads, batch=_rows, loss=lambda r: (r["left"] * r["right"]).square().mean()),
    "huge": Entry(build=Huge, batch=_rows),
    "reused": Entry(build=Reused, batch=_rows),
}
