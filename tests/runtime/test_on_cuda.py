"""What is the device's own doing on CUDA: two ranks share one GPU over gloo, beside torch's DDP and one process."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel as TorchDDP

import autopar
from tests.ranks import run_ranks
from tests.runtime.pairs import differences, seeded
from tests.runtime.test_batch_norm import Chain, apart, train
from tests.runtime.test_mixed_precision import UNIT

CUDA = torch.device("cuda", 0)


def layers() -> nn.Module:
    """Two layers on the GPU."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4)).to(CUDA)


def autocast() -> dict[str, Any]:
    """What differs from DDP under autocast, with float16 and with bfloat16."""
    found: dict[str, Any] = {}
    for dtype in (torch.float16, torch.bfloat16):
        plain = layers()
        mine = autopar.parallelize(copy.deepcopy(plain), "ddp", bucket_cap_mb=25)
        theirs = TorchDDP(plain)
        for one in (mine, theirs):
            seeded()
            with torch.autocast("cuda", dtype=dtype):
                output = one(torch.randn(8, 16, device=CUDA))
            found.setdefault("outputs", []).append(output.dtype == dtype)
            output.float().square().mean().backward()
        found[str(dtype)] = differences(mine, plain)
    return found


def summed_in_float32() -> float:
    """The largest error of gradients of bfloat16 parameters, in roundings of the exact mean."""
    local = layers().bfloat16()
    mine = autopar.parallelize(copy.deepcopy(local), "ddp", reduce_dtype=torch.float32)
    for one in (mine, local):
        seeded()
        one(torch.randn(8, 16, device=CUDA, dtype=torch.bfloat16)).float().square().mean().backward()
    worst = 0.0
    for parameter, own in zip(mine.parameters(), local.parameters(), strict=True):
        assert parameter.grad is not None
        assert own.grad is not None
        mean = own.grad.double()
        dist.all_reduce(mean)
        mean /= dist.get_world_size()
        error = (parameter.grad.double() - mean).abs() / (UNIT * mean.abs() + torch.finfo(torch.float64).tiny)
        worst = max(worst, error.max().item())
    return worst


def shared_norms() -> dict[str, Any]:
    """What differs from one process with the whole batch."""
    torch.manual_seed(0)
    whole = Chain(nn.SyncBatchNorm).double()
    alone = Chain(nn.BatchNorm2d).double()
    alone.load_state_dict(whole.state_dict())
    steps = [[5, 3]] * 3
    mine = autopar.parallelize(whole.to(CUDA), "ddp")
    for model, rank in ((mine, dist.get_rank()), (alone.to(CUDA), None)):
        model.register_forward_pre_hook(lambda _, batches: tuple(batch.to(CUDA) for batch in batches))
        train(model, steps, rank)
    return apart(mine, alone, bound=1e-8)


def on_one_gpu() -> dict[str, Any]:
    """All of it, on one process group."""
    dist.init_process_group("gloo")
    return {"autocast": autocast(), "float32": summed_in_float32(), "norms": shared_norms()}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_precision_and_norms() -> None:
    """The same promises as on the CPU."""
    for found in run_ranks(on_one_gpu, 2, timeout=200.0):
        assert found["autocast"] == {"outputs": [True] * 4, "torch.float16": [], "torch.bfloat16": []}
        assert found["float32"] <= 1.001
        assert found["norms"] == {}
