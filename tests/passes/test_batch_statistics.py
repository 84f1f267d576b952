"""Which modules need their batch whole, in which mode."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autopar.passes.batch_statistics import batch_statistics


class OwnBatchNorm(nn.Module):
    """Somebody's own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(3))


class FrozenBatchNorm2d(OwnBatchNorm):
    """As torchvision has one."""


@pytest.mark.parametrize(
    ("module", "training", "evaluating"),
    [
        (nn.BatchNorm2d(3), True, False),
        (nn.SyncBatchNorm(3), True, False),
        (nn.BatchNorm1d(3, track_running_stats=False), True, True),
        (nn.InstanceNorm2d(3), False, False),
        (nn.InstanceNorm2d(3, track_running_stats=True), True, False),
        (OwnBatchNorm(), True, False),
        (FrozenBatchNorm2d(), False, False),
        (nn.GroupNorm(1, 3), False, False),
        (nn.LayerNorm(3), False, False),
    ],
)
def test_modes(module: nn.Module, training: bool, evaluating: bool) -> None:
    """As torch documents for each class."""
    assert bool(batch_statistics(module.train())) is training
    assert bool(batch_statistics(module.eval())) is evaluating


def test_only_the_module_that_trains_counts() -> None:
    """A frozen batch norm in a model that trains needs nothing; the path of the other is given."""
    model = nn.Sequential(nn.BatchNorm1d(2).eval(), nn.Sequential(nn.BatchNorm1d(2)))
    assert batch_statistics(model) == ["1.0 (BatchNorm1d)"]
