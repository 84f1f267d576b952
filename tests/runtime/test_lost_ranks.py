"""A rank that dies or stops: the others say at which step and bucket, within the time limit."""

from __future__ import annotations

import os
import time

import pytest
import torch
import torch.distributed as dist
from torch import nn

import autopar
from autopar.errors import LaunchError
from tests.runtime.pairs import Ranks


def _model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))


def _die(gradient: torch.Tensor) -> None:
    os._exit(1)


def rank_dies_in_backward() -> tuple[str, float]:
    """The text of what the survivors raise, and how long it took, in seconds."""
    model = autopar.parallelize(_model(), "ddp", timeout=30.0)
    for _ in range(2):
        model(torch.randn(4, 6)).sum().backward()
        model.zero_grad()
    loss = model(torch.randn(4, 6)).sum()
    if dist.get_rank() == 1:
        model[0].weight.register_hook(_die)
    started = time.monotonic()
    with pytest.raises(LaunchError) as caught:
        loss.backward()
    return str(caught.value), time.monotonic() - started


def test_rank_that_dies_in_backward(ranks: Ranks) -> None:
    """Every survivor names step and bucket, long before the time limit."""
    results = ranks(rank_dies_in_backward, 3, lost=[1])
    for number in (0, 2):
        text, seconds = results[number]
        assert f"Rank {number} of 3 lost the others at step 2, bucket 0 of 1 (2.bias and 3 more): " in text
        assert "first error that any rank printed" in text
        assert seconds < 20.0


def rank_skips_backward() -> str:
    """The text of what the waiting rank raises when the other does not come."""
    model = autopar.parallelize(_model(), "ddp", timeout=2.0)
    model(torch.randn(4, 6)).sum().backward()
    model.zero_grad()
    loss = model(torch.randn(4, 6)).sum()
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    if dist.get_rank() == 1:
        store.wait(["rank 0 gave up"])
        return ""
    try:
        with pytest.raises(LaunchError) as caught:
            loss.backward()
    finally:
        store.set("rank 0 gave up", "")
    return str(caught.value)


def test_rank_that_skips_backward(ranks: Ranks) -> None:
    """The other waits no longer than ``timeout`` and names the step."""
    text = ranks(rank_skips_backward, 2)[0]
    assert "Rank 0 of 2 lost the others at step 1, bucket 0 of 1" in text
    assert "too slow" in text
