"""Uneven inputs with the drop-in: what torch's DDP does, bit for bit."""

from __future__ import annotations

import contextlib

import pytest
import torch

from tests.nn.wrapped import Norm, pair, start
from tests.runtime.pairs import Ranks, differences, seeded


def train_unevenly(batches: list[int], divide_by_initial: bool, interval: int) -> list[str]:
    """What differs from torch's DDP after each rank has trained on its number of batches in a join context."""
    rank = start()
    mine, theirs = pair(Norm, bucket_cap_mb=25)
    for model in (mine, theirs):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with model.join(divide_by_initial_world_size=divide_by_initial):
            for step in range(batches[rank]):
                with model.no_sync() if step % interval else contextlib.nullcontext():
                    seeded(step)
                    optimizer.zero_grad()
                    model(torch.randn(6, 4)).square().sum().backward()
                optimizer.step()
    return differences(mine, theirs, lambda p: p.detach()) + [str(mine._authoritative_rank)]


@pytest.mark.parametrize(
    ("batches", "interval", "initial"),
    [([2, 4], 1, True), ([4, 1], 1, False), ([0, 3], 1, False), ([1, 5], 2, True)],
)
def test_join_trains_as_torch_does(ranks: Ranks, batches: list[int], interval: int, initial: bool) -> None:
    """Bit for bit, also with a rank that has no batch at all, with accumulation, and without rank 0's buffers."""
    last = str(batches.index(max(batches)))
    assert ranks(train_unevenly, 2, batches, initial, interval) == [[last]] * 2


def stopped_early() -> tuple[int, str]:
    """How many steps this rank trained, and what ended them, with one batch on rank 0 and three on rank 1."""
    rank = start()
    model, _ = pair(Norm)
    steps = 0
    try:
        with model.join(throw_on_early_termination=True):
            for _ in range(1 + 2 * rank):
                model(torch.randn(6, 4)).sum().backward()
                steps += 1
    except RuntimeError as error:
        return steps, str(error)
    return steps, "nothing"


def test_all_ranks_stop_when_one_has_no_batch(ranks: Ranks) -> None:
    """Where they are asked to, each with torch's error."""
    (first, own), (second, others) = ranks(stopped_early, 2)
    assert (first, second) == (1, 1)
    assert own == "Rank 0 exhausted all inputs."
    assert "Detected at least one rank that exhausted inputs" in others
