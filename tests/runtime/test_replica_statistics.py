"""``data_parallel`` with batch norms: it says what its replicas see, as torch's wrapper on GPUs does not."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import autopar


def _model() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))


def test_a_batch_norm_that_trains_warns_once() -> None:
    """At the first step; the text names it and the number of replicas."""
    model = autopar.parallelize(_model(), "data_parallel", replicas=2)
    said = r"Each of the 2 replicas takes statistics of its own part of the batch in 1 \(BatchNorm2d\), as with torch"
    with pytest.warns(UserWarning, match=said):
        model(torch.randn(5, 1, 8, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(torch.randn(5, 1, 8, 8))


@pytest.mark.parametrize("change", ["eval", "one replica"])
def test_nothing_is_said_where_nothing_differs(change: str) -> None:
    """In eval mode the parts are normalised as the whole; one replica has the whole."""
    model = _model().train(change != "eval")
    replicas = 1 if change == "one replica" else 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        autopar.parallelize(model, "data_parallel", torch.randn(5, 1, 8, 8), replicas=replicas)
