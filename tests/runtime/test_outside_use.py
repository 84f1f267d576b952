"""Parameters that the loss uses as well: their gradients are more than the program's, and all of it is averaged."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.runtime.pairs import Ranks, seeded, twin_of


class TwoOutputs(nn.Module):
    """A head that the loss may leave out."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 16), nn.ReLU())
        self.left, self.right = nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both heads."""
        h = self.body(x)
        return self.left(h), self.right(h)


def penalty(model: TwoOutputs, left: torch.Tensor, right: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Weight decay in the loss: alike on all ranks."""
    return (left + right).square().mean() + 0.1 * sum(p.square().sum() for p in model.parameters())


def shared_weight(model: TwoOutputs, left: torch.Tensor, right: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A weight that works outside of the model, too, on this rank's data."""
    return (left + right).square().mean() + nn.functional.linear(x, model.body[0].weight).square().mean()


def left_out(model: TwoOutputs, left: torch.Tensor, right: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Parameters that get a gradient outside of the model alone."""
    return left.square().mean() + (model.right.weight * x[0]).sum() + (model.body[0].weight @ x[1]).sum()


LOSSES = (penalty, shared_weight, left_out)


def _difference(one: nn.Parameter, other: nn.Parameter) -> float:
    if one.grad is None or other.grad is None:
        return 0.0 if one.grad is other.grad else float("inf")
    return float((one.grad - other.grad).abs().max() / other.grad.abs().max())


def furthest_from_ddp(backend: str) -> dict[str, list[float]]:
    """For each loss, the largest difference of a gradient from DDP's in each of three steps, of its largest entry."""
    found: dict[str, list[float]] = {}
    for loss in LOSSES:
        mine, twin = twin_of(TwoOutputs, backend=backend, bucket_cap_mb=0.002, first_bucket_mb=0.001)
        theirs = DistributedDataParallel(twin, find_unused_parameters=loss is left_out)
        found[loss.__name__] = []
        for step in range(3):
            for model, parameters in ((mine, mine), (theirs, twin)):
                seeded(step)
                x = torch.randn(6, 16)
                parameters.zero_grad()
                loss(parameters, *model(x), x).backward()
            found[loss.__name__].append(max(map(_difference, mine.parameters(), twin.parameters())))
    return found


@pytest.mark.parametrize("backend", ["torch", "shm"])
def test_what_comes_from_outside_of_the_model_is_averaged_too(ranks: Ranks, backend: str) -> None:
    """As with DDP, whose sums come in another order: within 4 units in the last place."""
    for found in ranks(furthest_from_ddp, 2, backend):
        assert {name: max(furthest) < 5e-7 for name, furthest in found.items()} == dict.fromkeys(found, True), found
