"""Communication hooks on the drop-in: torch's run unchanged, others are checked."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel as TorchDDP

import autopar
from autopar.nn import DistributedDataParallel
from autopar.runtime.comm_hook import CommHook
from tests.nn.wrapped import Norm, pair, start
from tests.runtime.pairs import Ranks, differences, seeded


def all_close(mine: nn.Module, theirs: nn.Module, tolerance: float) -> bool:
    """Whether gradients are nearly the same."""
    pairs = zip(mine.parameters(), theirs.parameters(), strict=True)
    return all(torch.allclose(p.grad, q.grad, rtol=tolerance, atol=tolerance) for p, q in pairs)


def train_with_hook(name: str) -> list[str]:
    """What differs from torch's DDP after five steps with a communication hook."""
    start()
    mine, theirs = pair(Norm, bucket_cap_mb=25)
    for model in (mine, theirs):
        if name == "builtin":
            model._register_builtin_comm_hook(dist.BuiltinCommHookType.FP16_COMPRESS)
        elif name == "powerSGD":
            state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=1, start_powerSGD_iter=2)
            model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
        else:
            model.register_comm_hook(None, getattr(default_hooks, name))
        for step in range(5):
            seeded(step)
            model.zero_grad()
            model(torch.randn(6, 4)).square().sum().backward()
    return [] if name == "powerSGD" and all_close(mine, theirs, 1e-3) else differences(mine, theirs)


@pytest.mark.parametrize("name", ["allreduce_hook", "fp16_compress_hook", "builtin", "powerSGD"])
def test_hooks_of_torch_run_unchanged(ranks: Ranks, name: str) -> None:
    """Bit for bit; PowerSGD, which makes matrices of a bucket in the order of its parameters, nearly."""
    assert ranks(train_with_hook, 2, name) == [[], []]


def bf16_hook() -> bool:
    """Whether gradients are the mean to the precision of bfloat16; torch's DDP refuses this hook on the CPU."""
    start()
    model, twin = pair(Norm)
    model.register_comm_hook(None, default_hooks.bf16_compress_hook)
    for one in (model, twin):
        seeded()
        one(torch.randn(6, 4)).square().sum().backward()
    return all_close(model, twin, 2e-2)


def test_bf16_hook_runs_on_the_cpu(ranks: Ranks) -> None:
    """Where torch's DDP raises a TypeError."""
    assert ranks(bf16_hook, 2) == [True, True]


def refused_hooks() -> list[str]:
    """The errors for what is no hook, or a second one."""
    start()
    model = DistributedDataParallel(nn.Linear(2, 2))

    def annotated(state: object, bucket: int) -> None:
        pass

    def short(state, bucket):
        future: Any = torch.futures.Future()
        future.set_result(bucket.buffer()[:1])
        return future

    said = []
    for hook in ({}, annotated, short, short):
        try:
            model.register_comm_hook(None, hook)  # type: ignore[arg-type]
        except (TypeError, ValueError, RuntimeError) as error:
            said.append(f"{type(error).__name__}: {error}")
    with pytest.raises(Exception, match="gave 1 elements for bucket 0, which has 6"):
        model(torch.ones(1, 2)).sum().backward()
    return said


def test_what_is_no_hook_is_refused(ranks: Ranks) -> None:
    """With torch's exceptions, and a result of the wrong size when it comes."""
    for said in ranks(refused_hooks, 2):
        assert said[0].startswith("TypeError: Communication hook must be callable")
        assert said[1].startswith("ValueError: Communication hook: bucket annotation")
        assert said[2].startswith("RuntimeError: A communication hook can be registered once")


def parallelized_with_hook() -> list[str]:
    """What differs from torch's DDP with the same hook."""
    start()
    module = Norm()
    theirs = TorchDDP(copy.deepcopy(module), bucket_cap_mb=25)
    theirs.register_comm_hook(None, default_hooks.fp16_compress_hook)
    mine = autopar.parallelize(module, "ddp", comm_hook=CommHook(None, default_hooks.fp16_compress_hook))
    for model in (mine, theirs):
        seeded()
        model(torch.randn(6, 4)).square().sum().backward()
    return differences(mine, theirs)


def test_parallelize_takes_a_hook(ranks: Ranks) -> None:
    """As an option of ``ddp``."""
    assert ranks(parallelized_with_hook, 2) == [[], []]
