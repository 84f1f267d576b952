"""Low precision: autocast, bfloat16 parameters, and the dtype in which gradients are summed."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel as TorchDDP

import autopar
from autopar.errors import OptionError
from autopar.nn import DistributedDataParallel
from tests.ranks import run_ranks
from tests.runtime.pairs import differences, seeded, twin_of

UNIT = 2.0**-8  # half a unit in the last place of bfloat16


def model() -> nn.Module:
    """Two layers."""
    return nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))


def backward(one: nn.Module, dtype: torch.dtype) -> None:
    """A backward of rows of this rank."""
    seeded()
    one(torch.randn(8, 16, dtype=dtype)).float().square().mean().backward()


def gradients(one: nn.Module) -> list[torch.Tensor]:
    """Copies of all of them."""
    return [parameter.grad.clone() for parameter in one.parameters() if parameter.grad is not None]


def errors(mine: nn.Module, local: list[torch.Tensor]) -> dict[str, float]:
    """How far gradients are from the exact mean, in units in the last place of bfloat16.

    Returns:
        ``of_mean``: beside the mean itself; ``of_terms``: beside the mean of the ranks' magnitudes.
    """
    worst = {"of_mean": 0.0, "of_terms": 0.0}
    for parameter, gradient in zip(mine.parameters(), local, strict=True):
        assert parameter.grad is not None
        terms = [torch.empty_like(gradient, dtype=torch.float64) for _ in range(dist.get_world_size())]
        dist.all_gather(terms, gradient.double())
        stacked = torch.stack(terms)
        error = (parameter.grad.double() - stacked.mean(0)).abs()
        tiny = torch.finfo(torch.float64).tiny
        worst["of_mean"] = max(worst["of_mean"], float((error / (UNIT * stacked.mean(0).abs() + tiny)).max()))
        worst["of_terms"] = max(worst["of_terms"], float((error / (UNIT * stacked.abs().mean(0) + tiny)).max()))
    return worst


def bfloat16_parameters() -> dict[str, Any]:
    """Sums in bfloat16 and in float32, and bytes."""
    dist.init_process_group("gloo")
    found: dict[str, Any] = {}
    for name, options in (("bfloat16", {}), ("float32", {"reduce_dtype": torch.float32})):
        mine, local = twin_of(lambda: model().bfloat16(), **options)
        backward(mine, torch.bfloat16)
        backward(local, torch.bfloat16)
        found[name] = errors(mine, gradients(local))
        found[f"{name} bytes"] = [(one["nbytes"], one["sent_nbytes"]) for one in autopar.report(mine)["buckets"]]
        found[f"{name} dtype"] = {p.grad.dtype for p in mine.parameters() if p.grad is not None}
    return found


def drop_in() -> dict[str, Any]:
    """``mixed_precision`` with either ``reduce_dtype``, and autocast beside torch's DDP."""
    dist.init_process_group("gloo")
    found: dict[str, Any] = {}
    torch.manual_seed(0)
    plain = model()
    local: list[torch.Tensor] = []
    for dtype in (torch.bfloat16, torch.float32):
        config = SimpleNamespace(param_dtype=torch.bfloat16, reduce_dtype=dtype, buffer_dtype=None)
        mine = DistributedDataParallel(copy.deepcopy(plain), mixed_precision=config)
        with mine.no_sync():
            backward(mine, torch.float32)
        local = local or gradients(mine)
        mine.zero_grad()
        backward(mine, torch.float32)
        found[str(dtype)] = errors(mine, local)
    pair = [wrapper(copy.deepcopy(plain), bucket_cap_mb=25) for wrapper in (DistributedDataParallel, TorchDDP)]
    pair.append(autopar.parallelize(copy.deepcopy(plain), "ddp", bucket_cap_mb=25))
    for one in pair:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            seeded()
            output = one(torch.randn(8, 16))
        found.setdefault("outputs", set()).add(output.dtype)
        output.float().square().mean().backward()
    found["autocast"] = differences(pair[0], pair[1]) + differences(pair[2], pair[1])
    return found


def test_bfloat16_parameters_with_sums_in_float32() -> None:
    """One rounding, of the mean; in bfloat16 each rank and each addition rounds, which cancellation makes large."""
    for found in run_ranks(bfloat16_parameters, 3, timeout=100.0):
        assert found["float32"]["of_mean"] <= 1.001
        assert found["bfloat16"]["of_mean"] > 1.5
        assert found["bfloat16"]["of_terms"] <= 3.05
        assert [2 * before == after for before, after in found["float32 bytes"]] == [True]
        assert [before == after for before, after in found["bfloat16 bytes"]] == [True]
        assert found["float32 dtype"] == found["bfloat16 dtype"] == {torch.bfloat16}


def test_mixed_precision_sums_in_its_reduce_dtype() -> None:
    """Gradients of a bfloat16 backward: exact in float32 at two ranks, rounded in bfloat16; autocast as under DDP."""
    for found in run_ranks(drop_in, 2, timeout=100.0):
        assert found["torch.float32"]["of_mean"] == 0
        assert 0 < found["torch.bfloat16"]["of_mean"] <= 1
        assert found["outputs"] == {torch.bfloat16}
        assert found["autocast"] == []


@pytest.mark.parametrize("dtype", [torch.int32, "float", "complex64"])
def test_dtypes_that_cannot_be_averaged_are_refused(dtype: Any) -> None:
    """When they are given."""
    with pytest.raises(OptionError, match="Gradients cannot be reduced in"):
        autopar.DDP(reduce_dtype=dtype)
