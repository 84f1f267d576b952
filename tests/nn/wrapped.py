"""What tests of the wrappers share: models, the group, and a model in both wrappers."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel as TorchDDP

from autopar.nn import DistributedDataParallel

__all__ = ["Branches", "Norm", "pair", "start"]


class Norm(nn.Module):
    """A batch norm between two layers, and a buffer that forward only reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)
        self.register_buffer("scale", torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (batch, 2)."""
        return self.second(self.norm(self.first(x)).relu()) * self.scale


class Branches(nn.Module):
    """Uses one layer or the other, as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor, left: bool) -> torch.Tensor:
        """One layer of two."""
        return self.left(x) if left else self.right(x)


def start() -> int:
    """Joins the group; gives this rank."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    return dist.get_rank()


def pair(build: Any, **options: Any) -> tuple[Any, Any]:
    """A model in autopar's wrapper, and its twin in torch's."""
    module = build()
    return DistributedDataParallel(copy.deepcopy(module), **options), TorchDDP(copy.deepcopy(module), **options)
