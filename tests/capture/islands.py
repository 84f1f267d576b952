"""Models with an opaque outside and graphs inside."""

# ruff: noqa: D102 - a forward is what its class says

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

__all__ = ["Block", "Handed", "Masked", "Nested", "Shared", "ValueLoop", "WholeLoop"]

SIZE = 6


class Block(nn.Module):
    """Normalisation, layer and dropout around a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(SIZE)
        self.fc = nn.Linear(SIZE, SIZE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + F.dropout(self.fc(self.norm(x)), 0.5, self.training).relu()


class ValueLoop(nn.Module):
    """Runs its blocks for as long as what they compute is small."""

    def __init__(self, blocks: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))
        self.scale = nn.Parameter(torch.ones(SIZE))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            if x.detach().abs().mean() < 1e3:
                x = block(x)
        return x * self.scale


class Model(nn.Module):
    """A layer before and after a part that no graph can hold."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.first = nn.Linear(4, SIZE)
        self.part = part
        self.last = nn.Linear(SIZE, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.part(self.first(x)))


class WholeLoop(ValueLoop):
    """The same loop as the model itself: nothing is left outside of it."""


class Masked(nn.Module):
    """Hides a number of columns that NumPy draws, and encodes the rest, with statistics of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(Block(), nn.BatchNorm1d(SIZE), Block())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.ones(SIZE)
        hidden[np.random.randint(SIZE)] = 0
        return self.encoder(x * hidden)


class Shared(nn.Module):
    """Calls one block twice, the second time with other sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.block(x)
        return x + self.block(x[:1]) if x.sum() > -1e9 else x


class Nested(nn.Module):
    """A loop inside of what is a graph but for that loop, inside of a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(Block(), ValueLoop(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) if x.sum() > -1e9 else x


class Giving(nn.Module):
    """Appends to a list that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(SIZE, SIZE)

    def forward(self, x: torch.Tensor, seen: list[torch.Tensor]) -> torch.Tensor:
        seen.append(x)
        return self.fc(x)


class Asked(nn.Module):
    """Takes an object that says what it is to do."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(SIZE, SIZE)

    def forward(self, x: torch.Tensor, wish: Wish) -> torch.Tensor:
        return self.fc(x) * wish.factor


class Wish:
    """An object that no graph can be pinned to."""

    factor = 2.0


class Handed(nn.Module):
    """Submodules that cannot be islands, each for a reason of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.giving, self.asked = Giving(), Asked()
        self.again, self.fixed = Block(), Block()
        self.unused = nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen: list[torch.Tensor] = []
        x = self.asked(self.giving(x, seen), Wish())
        x = checkpoint(self.again, x, use_reentrant=False)
        with torch.no_grad():
            fixed = self.fixed(x)
        return x + fixed if seen[0].sum() > -1e9 else x
