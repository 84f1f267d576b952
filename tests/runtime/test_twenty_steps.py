"""Parameters after twenty optimizer steps, autopar's beside those of torch's DDP: docs/ddp.md has the table."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel as TorchDDP

import autopar
from tests.runtime.pairs import Ranks, seeded
from tests.runtime.zoo import ZOO

MODELS = ["mlp", "conv_bn", "lstm", "transformer", "tied"]
OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
}
STEPS = 20
# Where the true gradient is 0, so that what there is of one is rounding: the bias of a convolution before a batch
# norm, and the middle third of an attention's bias, which belongs to the keys.
WITHOUT_GRADIENT = {"conv_bn": ("conv2.bias", slice(None)), "transformer": ("qkv.bias", slice(16, 32))}


def _trained(name: str, model: nn.Module, optimizer: str) -> dict[str, torch.Tensor]:
    steps = OPTIMIZERS[optimizer](model.parameters())
    for step in range(STEPS):
        seeded(step)
        steps.zero_grad()
        ZOO[name].loss(model(*ZOO[name].batch())).backward()
        steps.step()
    return {path.removeprefix("module."): parameter.detach() for path, parameter in model.named_parameters()}


def _apart(name: str, optimizer: str, mine: dict[str, Any], theirs: dict[str, Any]) -> tuple[float, float]:
    """The largest difference, as a part of the largest parameter: where gradients are, and where there are none."""
    torch.manual_seed(0)
    model = ZOO[name].build()
    twin = TorchDDP(copy.deepcopy(model), **theirs)
    parameters = _trained(name, autopar.parallelize(model, "ddp", **mine), optimizer)
    expected = _trained(name, twin, optimizer)
    worst, rounding = 0.0, 0.0
    for path, parameter in parameters.items():
        difference = (parameter - expected[path]).abs()
        ending, place = WITHOUT_GRADIENT.get(name, ("", slice(0)))
        if ending and path.endswith(ending):
            rounding = max(rounding, difference[place].max().item())
            difference[place] = 0.0
        worst = max(worst, difference.max().item())
    largest = max(parameter.abs().max().item() for parameter in expected.values())
    return worst / largest, rounding / largest


def apart(mine: dict[str, Any], theirs: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """The differences of all models with both optimizers, on one process group."""
    torch.distributed.init_process_group("gloo")
    return {f"{name}, {kind}": _apart(name, kind, mine, theirs) for name in MODELS for kind in OPTIMIZERS}


BUCKET_EACH = ({"bucket_cap_mb": 0, "backend": "torch"}, {"bucket_cap_mb": 0, "find_unused_parameters": True})


@pytest.mark.parametrize(("world", "settings"), [(2, ({}, {})), (3, BUCKET_EACH)])
def test_training_ends_at_the_parameters_of_ddp(ranks: Ranks, world: int, settings: Any) -> None:
    """Bit by bit: a sum of two terms has one order, and one of three has over gloo where the buckets are the same."""
    for found in ranks(apart, world, *settings, timeout=300):
        assert found == dict.fromkeys(found, (0.0, 0.0))


def test_three_ranks_with_other_buckets_differ_by_rounding(ranks: Ranks) -> None:
    """The order of a sum of three terms differs.

    AdamW divides each gradient by its own size, so what is rounding alone becomes a step as large as any.
    """
    for found in ranks(apart, 3, {}, {}, timeout=300):
        assert max(worst for worst, _ in found.values()) < 2e-6, found
        assert max(rounding for _, rounding in found.values()) < 0.05, found
