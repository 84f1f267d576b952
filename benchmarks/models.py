"""The models of the workloads: small, and each stressing something else."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GPT", "conv_net", "deep_mlp", "wide_mlp"]


def deep_mlp() -> nn.Module:
    """64 times Linear(64, 64) and ReLU: overhead per parameter, next to no arithmetic."""
    return nn.Sequential(*(layer for _ in range(64) for layer in (nn.Linear(64, 64), nn.ReLU())))


def wide_mlp() -> nn.Module:
    """1024-4096-4096-1024: 25 million parameters on a small batch, so bytes of gradient decide."""
    return nn.Sequential(nn.Linear(1024, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1024))


def conv_net() -> nn.Module:
    """14 convolutions with BatchNorm on 32x32 images: arithmetic decides, buffers ride along."""
    widths = [3, *[32] * 4, *[64] * 5, *[128] * 5]
    layers: list[nn.Module] = []
    for number, (inside, outside) in enumerate(itertools.pairwise(widths)):
        stride = 2 if number and inside != outside else 1
        layers += [
            nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm1(x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in qkv)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        hidden: Tensor = self.down(F.gelu(self.up(self.norm2(x))))
        return x + hidden


class GPT(nn.Module):
    """A causal transformer: a mix of sizes, with a large embedding whose gradient is ready last."""

    def __init__(
        self, vocabulary: int = 4096, width: int = 256, heads: int = 8, blocks: int = 6, context: int = 64
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.zeros(context, width))
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (batch, time, vocabulary) of the next token; ``tokens`` is (batch, time), int64."""
        x = self.blocks(self.embed(tokens) + self.position[: tokens.size(1)])
        logits: Tensor = self.head(self.norm(x))
        return logits
