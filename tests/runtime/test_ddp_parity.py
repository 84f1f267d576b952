"""``ddp`` against torch.nn.parallel.DistributedDataParallel: the same bits everywhere."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn

import autopar
from tests.runtime.pairs import Ranks, differences, make_pair, seeded
from tests.runtime.zoo import ZOO


def _step(name: str, model: nn.Module, step: int) -> None:
    seeded(step)
    ZOO[name].loss(model(*ZOO[name].batch())).backward()


def gradients(name: str, bucket_cap_mb: float | None = None) -> list[str]:
    """Names of what differs after each of three steps."""
    mine, twin, theirs = make_pair(name, bucket_cap_mb)
    found = []
    for step in range(3):
        for model in (mine, theirs):
            model.zero_grad()
            _step(name, model, step)
        found += [f"step {step}: {n}" for n in differences(mine, twin)]
        for p in [*mine.parameters(), *twin.parameters()]:
            if p.grad is not None:
                p.data.sub_((p.grad.to_dense() if p.grad.is_sparse else p.grad) * 0.1)
    if dist.get_rank() == 0:  # torch's DDP leaves the other ranks' own statistics until the next forward
        pairs = zip(mine.named_buffers(), twin.buffers(), strict=True)
        found += [f"buffer {n}" for (n, b), c in pairs if not torch.equal(b, c)]
    return found


@pytest.mark.parametrize("name", ZOO)
def test_gradients_equal_ddp_on_two_ranks(ranks: Ranks, name: str) -> None:
    """Every gradient has DDP's bits, and rank 0's buffers too."""
    assert ranks(gradients, 2, name) == [[], []]


@pytest.mark.parametrize("name", ["mlp", "conv_bn", "transformer", "mixed_dtypes"])
def test_gradients_equal_ddp_on_three_ranks_with_a_bucket_each(ranks: Ranks, name: str) -> None:
    """With the same messages a sum of three terms has the same order, so the bits are DDP's, too."""
    assert ranks(gradients, 3, name, 0) == [[], [], []]


def test_gradients_equal_ddp_on_three_ranks_once_ddp_has_found_the_order(ranks: Ranks) -> None:
    """In one bucket the bits are DDP's from its second step on, when it has rebuilt its buckets."""
    assert ranks(_rebuilt, 3, "mlp") == [[], [], []]


def _rebuilt(name: str) -> list[str]:
    mine, twin, theirs = make_pair(name)
    found = []
    for step in range(3):
        for model in (mine, theirs):
            model.zero_grad()
            _step(name, model, step)
        found += [f"step {step}: {n}" for n in differences(mine, twin) if step > 0]
    return found


def zeroed_in_place(name: str) -> list[str]:
    """Names of what differs when gradients are zeroed instead of dropped."""
    mine, twin, theirs = make_pair(name)
    for step in range(3):
        for model in (mine, theirs):
            model.zero_grad(set_to_none=False)
            _step(name, model, step)
    return differences(mine, twin)


@pytest.mark.parametrize("name", ["mlp", "opaque_submodule"])
def test_zeroing_gradients_in_place_equals_ddp(ranks: Ranks, name: str) -> None:
    """``zero_grad(set_to_none=False)`` keeps the ``.grad`` objects and gives DDP's gradients."""
    assert ranks(zeroed_in_place, 2, name) == [[], []]


def accumulated(name: str) -> list[str]:
    """Names of what differs after two synchronised micro-steps, twice."""
    mine, twin, theirs = make_pair(name)
    found = []
    for step in (0, 2):
        for model in (mine, theirs):
            model.zero_grad()
            _step(name, model, step)
            _step(name, model, step + 1)
        found += differences(mine, twin)
    return found


@pytest.mark.parametrize("name", ["mlp", "conv_bn", "opaque_submodule"])
def test_accumulation_without_no_sync_equals_ddp(ranks: Ranks, name: str) -> None:
    """Every backward is synchronised, and the sum is DDP's."""
    assert ranks(accumulated, 2, name) == [[], []]


def accumulated_locally(name: str) -> list[str]:
    """Names of what differs: after two local micro-steps (first list) and after the third, synchronised."""
    mine, twin, theirs = make_pair(name)
    found = []
    for step in (0, 3):
        for model in (mine, theirs):
            model.zero_grad()
            with autopar.no_sync(model) if model is mine else model.no_sync():
                _step(name, model, step)
                _step(name, model, step + 1)
        found += [f"local {n}" for n in differences(mine, twin)]
        for model in (mine, theirs):
            _step(name, model, step + 2)
        found += [f"sum {n}" for n in differences(mine, twin)]
    return found


@pytest.mark.parametrize("name", ["mlp", "conv_bn", "opaque_submodule", "tied"])
def test_accumulation_with_no_sync_equals_ddp(ranks: Ranks, name: str) -> None:
    """Inside ``no_sync`` gradients stay local; the first backward after it sends the sum."""
    assert ranks(accumulated_locally, 2, name) == [[], []]


def unequal_batches() -> list[str]:
    """Names of what differs when the ranks' batches differ in size, and change from step to step."""
    mine, twin, theirs = make_pair("mlp")
    found = []
    for step in range(3):
        for model in (mine, theirs):
            model.zero_grad()
            seeded(step)
            model(torch.randn(2 + 3 * dist.get_rank() + step, 6)).square().mean().backward()
        found += differences(mine, twin)
    return found


def test_unequal_batches_equal_ddp(ranks: Ranks) -> None:
    """Batch sizes may differ between ranks and steps; gradients are means of means, as DDP's."""
    assert ranks(unequal_batches, 2) == [[], []]


def switched_modes() -> list[str]:
    """Names of what differs when train and eval steps alternate."""
    mine, twin, theirs = make_pair("transformer")
    found = []
    for step in range(4):
        for model in (mine, theirs):
            model.train(step % 2 == 0)
            model.zero_grad()
            _step("transformer", model, step)
        found += differences(mine, twin)
    return found


def test_switching_train_and_eval_equals_ddp(ranks: Ranks) -> None:
    """Dropout follows the mode of each step."""
    assert ranks(switched_modes, 2) == [[], []]
