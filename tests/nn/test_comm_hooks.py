"""Communication hooks on the drop-in: torch's run unchanged, others are checked."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import (
    debugging_hooks,
    default_hooks,
    post_localSGD_hook,
    powerSGD_hook,
    quantization_hooks,
)
from torch.nn.parallel import DistributedDataParallel as TorchDDP

import autopar
from autopar.nn import DistributedDataParallel
from autopar.runtime.comm_hook import CommHook
from tests.nn.wrapped import Norm, pair, start
from tests.runtime.pairs import Ranks, all_same, differences, seeded


def all_close(mine: nn.Module, theirs: nn.Module, tolerance: float) -> bool:
    """Whether gradients are nearly the same."""
    pairs = zip(mine.parameters(), theirs.parameters(), strict=True)
    return all(torch.allclose(p.grad, q.grad, rtol=tolerance, atol=tolerance) for p, q in pairs)


def low_rank() -> powerSGD_hook.PowerSGDState:
    """PowerSGD from the third step on."""
    return powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=1, start_powerSGD_iter=2, min_compression_rate=1)


def alone_from_the_third_step() -> post_localSGD_hook.PostLocalSGDState:
    """Averages that end at the second step."""
    groups = [dist.new_group([rank]) for rank in range(dist.get_world_size())]
    return post_localSGD_hook.PostLocalSGDState(None, groups[dist.get_rank()], 2)


BUILT_IN = dist.BuiltinCommHookType
HOOKS: dict[str, tuple[Any, Any]] = {
    "allreduce": (None, default_hooks.allreduce_hook),
    "fp16": (None, default_hooks.fp16_compress_hook),
    "wrapped fp16": (None, default_hooks.fp16_compress_wrapper(default_hooks.allreduce_hook)),
    "powerSGD": (low_rank, powerSGD_hook.powerSGD_hook),
    "post-localSGD": (alone_from_the_third_step, post_localSGD_hook.post_localSGD_hook),
    "noop": (None, debugging_hooks.noop_hook),
    "built-in allreduce": (None, BUILT_IN.ALLREDUCE),
    "built-in fp16": (None, BUILT_IN.FP16_COMPRESS),
    # On torch 2.13 these fail on the CPU, in their own code and under any wrapper.
    "batched powerSGD": (low_rank, powerSGD_hook.batched_powerSGD_hook),
    "per tensor": (None, quantization_hooks.quantization_pertensor_hook),
    "per channel": (None, quantization_hooks.quantization_perchannel_hook),
}


def after_five_steps(wrapper: Any, name: str) -> list[torch.Tensor] | str:
    """Gradients, or the kind of the error, also of one inside of a callback."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 2))
    model = wrapper(layers, bucket_cap_mb=25)
    make_state, hook = HOOKS[name]
    if isinstance(hook, BUILT_IN):
        model._register_builtin_comm_hook(hook)
    else:
        model.register_comm_hook(None if make_state is None else make_state(), hook)
    try:
        for step in range(5):
            seeded(step)
            model.zero_grad()
            model(torch.randn(6, 8)).square().sum().backward()
    except (AssertionError, RuntimeError) as error:
        return [type(error).__name__, *re.findall(r"\w+Error", str(error))][-1]
    return [parameter.grad for parameter in model.parameters()]


def all_hooks() -> dict[str, bool]:
    """Whether each hook does the same under both wrappers: the same bits, or the same error."""
    start()
    found = {}
    for name in HOOKS:
        mine, theirs = after_five_steps(DistributedDataParallel, name), after_five_steps(TorchDDP, name)
        if isinstance(mine, str) or isinstance(theirs, str):
            found[name] = mine == theirs
        else:
            found[name] = all_same(mine, theirs)
    return found


def test_hooks_of_torch_run_unchanged(ranks: Ranks) -> None:
    """Each of torch's that runs over gloo, bit for bit as under torch's DDP."""
    for found in ranks(all_hooks, 2, timeout=100.0):
        assert found == dict.fromkeys(HOOKS, True)


def hooks_that_torch_refuses() -> list[bool]:
    """Whether gradients are the mean to the precision of the hook; torch's DDP refuses these on the CPU."""
    start()
    bf16, wrapper = default_hooks.bf16_compress_hook, default_hooks.bf16_compress_wrapper
    narrow_factors = default_hooks.fp16_compress_wrapper(powerSGD_hook.powerSGD_hook)
    found = []
    for state, hook in ((None, bf16), (None, wrapper(default_hooks.allreduce_hook)), (whole_rank(), narrow_factors)):
        model, twin = pair(Norm)
        model.register_comm_hook(state, hook)
        for one in (model, twin):
            seeded()
            one(torch.randn(6, 4)).square().sum().backward()
        found.append(all_close(model, twin, 2e-2))
    return found


def whole_rank() -> powerSGD_hook.PowerSGDState:
    """PowerSGD from the first step on that leaves nothing out."""
    return powerSGD_hook.PowerSGDState(None, 8, start_powerSGD_iter=0, use_error_feedback=False, warm_start=False)


def test_bf16_hook_runs_on_the_cpu(ranks: Ranks) -> None:
    """And its wrapper, where torch's DDP raises a TypeError."""
    assert ranks(hooks_that_torch_refuses, 2) == [[True] * 3] * 2


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
