"""``accumulate=k``: k backwards are one step, and only the last of them communicates."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

import autopar
from autopar.attach import attachment_of
from autopar.errors import OptionError, RuntimeStateError, UsageError
from autopar.runtime.comm_hook import CommHook
from tests.runtime.pairs import Ranks, differences, seeded, twin_of
from tests.runtime.zoo import ZOO

# Traced; gathered by hooks; with a backward inside backward; sparse gradients; buffers that forward writes.
MODELS = ["mlp", "opaque_submodule", "checkpoint_reentrant", "sparse", "conv_bn"]


def _engine(model: nn.Module) -> Any:
    return attachment_of(model).executor.engine


def _backward(name: str, model: nn.Module, step: int, *, divide_by: int = 1) -> None:
    seeded(step)
    (ZOO[name].loss(model(*ZOO[name].batch())) / divide_by).backward()


def by_hand(name: str, k: int, **options: Any) -> tuple[list[str], list[int]]:
    """What differs after three optimizer steps from ``no_sync`` and losses divided by hand, and what was sent when."""
    mine, twin = twin_of(ZOO[name].build, accumulate=k, **options)
    theirs = autopar.parallelize(twin, "ddp", **options)
    sent = []
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (mine, theirs)]
    for step in range(3 * k):
        last = step % k == k - 1
        _backward(name, mine, step)
        with contextlib.nullcontext() if last else autopar.no_sync(theirs):
            _backward(name, theirs, step, divide_by=k)
        sent.append(_engine(mine).steps)
        if last:
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    return differences(mine, theirs, lambda p: p.detach()), sent


def all_by_hand(models: list[str]) -> list[Any]:
    """``by_hand`` with each model, under ``torch.compile``, and with a communication hook."""
    hook = CommHook(None, default_hooks.allreduce_hook)
    return [
        *(by_hand(name, 2) for name in models),
        by_hand("mlp", 2, compile={"backend": "aot_eager"}),
        by_hand("mlp", 4, comm_hook=hook),
    ]


def test_equals_no_sync_and_a_divided_loss(ranks: Ranks) -> None:
    """Bit for bit with a k that is a power of two, on every route; nothing is sent before the last backward."""
    expected = [([], [0, 1, 1, 2, 2, 3])] * (len(MODELS) + 1) + [([], [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3])]
    assert ranks(all_by_hand, 2, MODELS) == [expected] * 2


def _rows(rank: int, step: int) -> torch.Tensor:
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(10 * rank + step))


def _whole(build: Any, batches: list[torch.Tensor]) -> nn.Module:
    torch.manual_seed(0)
    model = build()
    model(torch.cat(batches)).square().mean().backward()
    return model


def _close(mine: nn.Module, whole: nn.Module) -> bool:
    pairs = zip(mine.parameters(), whole.parameters(), strict=True)
    return all(torch.allclose(p.grad, q.grad, rtol=1e-5, atol=1e-6) for p, q in pairs)


def windows() -> dict[str, bool]:
    """What holds of gradients against one process with the whole batch, in the order of a training script."""
    build = ZOO["mlp"].build
    mine, _ = twin_of(build, accumulate=3)
    rank = dist.get_rank()
    found = {}
    losses = [mine(_rows(rank, step)).square().mean() for step in range(2)]  # two forwards, then two backwards
    with autopar.no_sync(mine):
        zero = 0.0 * mine(_rows(rank, 7)).square().mean()
    zero.backward()  # adds, and does not count
    losses[0].backward()
    (gradient,) = torch.autograd.grad(mine(_rows(rank, 3)).square().mean(), [mine[0].weight])
    alone = _whole(build, [_rows(0, 3), _rows(1, 3)])[0].weight.grad
    found["autograd.grad gives the mean of its own losses"] = torch.allclose(gradient, alone, rtol=1e-5, atol=1e-6)
    losses[1].backward()
    found["nothing was sent"] = _engine(mine).steps == 0
    mine(_rows(rank, 2)).square().mean().backward()
    found["three backwards are one big step"] = _close(
        mine, _whole(build, [_rows(r, s) for r in (0, 1) for s in range(3)])
    )
    # the end of an epoch: rank 0 has one batch left, rank 1 has two, then none has any
    mine.zero_grad()
    for step in range(1 + rank):
        mine(_rows(rank, step)).square().mean().backward()
    found["flush counts what there is"] = autopar.flush(mine) == 3
    found["flush is the mean over it"] = _close(mine, _whole(build, [_rows(0, 0), _rows(1, 0), _rows(1, 1)]))
    found["nothing left to flush"] = autopar.flush(mine) == 0
    if rank == 1:  # rank 0 still has the gradients of the last window
        mine.zero_grad()
        mine(_rows(1, 5)).square().mean().backward()
    autopar.flush(mine)
    found["a rank without a batch adds nothing"] = _close(mine, _whole(build, [_rows(1, 5)]))
    return found


def test_windows_against_one_big_step(ranks: Ranks) -> None:
    """k micro-batches give the gradient of one batch k times as large, up to rounding; so does an unfinished window."""
    for found in ranks(windows, 2):
        assert found == dict.fromkeys(found, True)


def flush_apart() -> str:
    """The error of a flush on ranks that finished different numbers of windows."""
    mine, _ = twin_of(ZOO["mlp"].build, accumulate=2)
    mine(torch.randn(2, 6)).sum().backward()
    _engine(mine).steps += dist.get_rank()
    with pytest.raises(RuntimeStateError) as caught:
        autopar.flush(mine)
    return str(caught.value)


def test_flush_on_ranks_at_different_steps(ranks: Ranks) -> None:
    """Every rank raises the same error, which names both."""
    one, other = ranks(flush_apart, 2)
    assert one == other
    assert "Rank 0 wants to flush at step 0, micro-step 1, and rank 1 at step 1, micro-step 1" in one


def test_one_process_divides_too() -> None:
    """A script has the same gradients on one process as on many."""
    build = ZOO["mlp"].build
    torch.manual_seed(0)
    mine = autopar.parallelize(build(), "ddp", accumulate=2)
    for step in range(2):
        mine(_rows(0, step)).square().mean().backward()
    assert _close(mine, _whole(build, [_rows(0, 0), _rows(0, 1)]))
    mine.zero_grad()
    mine(_rows(0, 0)).square().mean().backward()
    assert autopar.flush(mine) == 1
    assert _close(mine, _whole(build, [_rows(0, 0)]))


@pytest.mark.parametrize("k", [0, -1, 2.0, True])
def test_what_is_no_number_of_backwards_is_refused(k: Any) -> None:
    """Before anything is done to the model."""
    with pytest.raises(OptionError, match=r"The option accumulate is .*1 or more"):
        autopar.parallelize(nn.Linear(2, 2), "ddp", accumulate=k)


def test_flush_without_accumulation_is_refused() -> None:
    """There is no window to end."""
    with pytest.raises(UsageError, match="does not accumulate"):
        autopar.flush(autopar.parallelize(nn.Linear(2, 2), "ddp"))
