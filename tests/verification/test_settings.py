"""What cannot be asked is refused before any process is started."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import autopar
from autopar.errors import UsageError
from autopar.verification import Settings
from autopar.verification.settings import OPTIMIZERS


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"nproc": 1}, "--nproc 1 was given"),
        ({"steps": 0}, "--steps 0 was given"),
        ({"lr": -1.0}, "--lr -1.0 was given"),
        ({"optimizer": "adamww"}, "Did you mean 'adamw'?"),
    ],
)
def test_values_out_of_range(given: dict[str, Any], said: str) -> None:
    """The sentence names the option."""
    with pytest.raises(UsageError) as caught:
        Settings(**given)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name: str) -> None:
    """Each is made with its default and with another learning rate."""
    model = nn.Linear(2, 1)
    model.bias.requires_grad_(False)
    optimizer = Settings(optimizer=name, lr=0.125).make_optimizer(model)
    assert optimizer.param_groups[0]["lr"] == 0.125
    assert [p is model.weight for p in optimizer.param_groups[0]["params"]] == [True]
    Settings(optimizer=name).make_optimizer(model)


def test_a_parallel_model_is_refused() -> None:
    """It is no yardstick for itself."""
    model = autopar.parallelize(nn.Linear(2, 1), "data_parallel")
    with pytest.raises(UsageError, match="is parallel already"):
        autopar.verify(model, torch.ones(4, 2))


def test_a_model_that_cannot_be_pickled() -> None:
    """The mend is a function that builds it."""
    with pytest.raises(UsageError, match="cannot be handed to other processes"):
        autopar.verify(lambda: nn.Linear(2, 1), torch.ones(4, 2))
