"""Compressed buckets on real ranks: how far from the exact mean, the same on all ranks, and what was sent."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook as torchs
from torch.nn.parallel import DistributedDataParallel

import autopar
from autopar.compilation import compile_program
from autopar.errors import PlanError
from autopar.runtime.collectives import LoneCollectives
from autopar.runtime.engine import BucketEngine
from tests.opaque import kept_whole
from tests.ranks import run_ranks
from tests.runtime.pairs import differences, local_mean, seeded, twin_of

WIDTH = 32
Results = list[dict[str, Any]]


class Model(nn.Module):
    """Layers in the graph, and one behind a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = (
            nn.Linear(WIDTH, WIDTH),
            kept_whole(nn.LSTM(WIDTH, WIDTH)),
            nn.Linear(WIDTH, 3),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Three numbers for each row."""
        return self.last(self.inner(self.first(x).relu())[0])


def backward(model: nn.Module, step: int = 0, scale: float = 1.0) -> None:
    """One backward of random rows of this rank and step."""
    seeded(step)
    (model(torch.randn(8, WIDTH)).square().mean() * scale).backward()


def flat(model: nn.Module) -> torch.Tensor:
    """All gradients in one tensor."""
    return torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None])


def everywhere(value: torch.Tensor) -> bool:
    """Whether all ranks hold the same bits."""
    rows = [torch.empty_like(value) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, value)
    return all(torch.equal(row, rows[0]) for row in rows)


def sent(model: nn.Module) -> list[tuple[str, int, int]]:
    """Form, bytes before and bytes on the wire of each bucket."""
    return [(one["compression"], one["nbytes"], one["sent_nbytes"]) for one in autopar.report(model)["buckets"]]


def casts(text: str, unit: float, backend: str) -> dict[str, Any]:
    """One step of a cast, within its bound of the mean."""
    mine, twin = twin_of(Model, compression=text, backend=backend)
    backward(mine)
    backward(twin)
    terms = flat(twin).abs() / dist.get_world_size()
    dist.all_reduce(terms)
    local_mean(twin)
    error = (flat(mine) - flat(twin)).abs()
    ranks = dist.get_world_size()
    return {
        "within": bool((error <= ranks * unit * terms + ranks * 2.0**-24).all()),
        "exact": bool((error == 0).all()),
        "everywhere": everywhere(flat(mine)),
        "sent": sent(mine),
    }


def whole_topk(backend: str) -> list[str]:
    """What differs from the uncompressed gradients when everything travels, with accumulation and ``no_sync``."""
    mine, twin = twin_of(Model, compression="topk{ratio=1}", backend=backend, bucket_cap_mb=25)
    autopar.parallelize(twin, "ddp", backend=backend, bucket_cap_mb=25)
    for step in range(3):
        for model in (mine, twin):
            with autopar.no_sync(model):
                backward(model, step)
            backward(model, step + 10)
    windows = twin_of(Model, compression="topk{ratio=1}", accumulate=2, backend=backend, bucket_cap_mb=25)
    autopar.parallelize(windows[1], "ddp", accumulate=2, backend=backend, bucket_cap_mb=25)
    for model in windows:
        for step in range(4):
            if step % 2 == 0:
                model.zero_grad()
            backward(model, step)
    return differences(mine, twin) + differences(*windows)


def overflowing() -> dict[str, Any]:
    """A step whose sum does not fit float16, one that fits, and one that is not finite."""
    mine, twin = twin_of(Model, compression="fp16", backend="torch")
    whole = []
    for step, scale in enumerate((1e8, 1.0)):
        mine.zero_grad()
        twin.zero_grad()
        backward(mine, step, scale)
        backward(twin, step, scale)
        local_mean(twin)
        whole.append((torch.equal(flat(mine), flat(twin)), sent(mine)))
    mine.zero_grad()
    backward(mine, 5, float("inf") if dist.get_rank() == 0 else 1.0)
    return {
        "whole": whole,
        "finite": bool(flat(mine).isfinite().any()),
        "everywhere": everywhere(flat(mine).nan_to_num()),
    }


def low_rank(backend: str) -> dict[str, Any]:
    """Gradients of rank 4 over all ranks, with powersgd of that rank and of less; torch's hook beside it."""
    results: dict[str, Any] = {}
    rows = 4 // dist.get_world_size()

    def step(model: nn.Module) -> None:
        seeded()
        model.zero_grad()
        model(torch.randn(rows, WIDTH)).square().sum().backward()

    for rank in (4, 2):
        mine, twin = twin_of(lambda: nn.Linear(WIDTH, WIDTH), compression=f"powersgd{{rank={rank}}}", backend=backend)
        theirs = DistributedDataParallel(copy.deepcopy(twin))
        state = torchs.PowerSGDState(None, rank, start_powerSGD_iter=2, min_compression_rate=1)
        theirs.register_comm_hook(state, torchs.powerSGD_hook)
        step(twin)
        local_mean(twin)
        for _ in range(3):  # torch's begins at the third
            step(theirs)
        step(mine)
        exact = flat(twin)
        results[f"error {rank}"] = float((flat(mine) - exact).norm() / exact.norm())
        results[f"error of torch {rank}"] = float((flat(theirs) - exact).norm() / exact.norm())
        results[f"everywhere {rank}"] = everywhere(flat(mine))
        results[f"sent {rank}"] = sent(mine)
    whole, _ = twin_of(Model, compression="powersgd{rank=8}", backend=backend)
    for number in range(2):
        backward(whole, number)
    results["hooks"] = (everywhere(flat(whole)), sent(whole))
    return results


def against_torch() -> float:
    """The largest difference from torch's DDP with its hook for float16."""
    mine, twin = twin_of(lambda: nn.Linear(WIDTH, WIDTH), compression="fp16", bucket_cap_mb=25, backend="torch")
    theirs = DistributedDataParallel(twin)
    theirs.register_comm_hook(None, default_hooks.fp16_compress_hook)
    for model in (mine, theirs):
        backward(model)
    return float((flat(mine) - flat(theirs)).abs().max())


def regression(text: str, *, steps: int = 50) -> float:
    """The loss after SGD on a problem whose gradients are of very different sizes."""
    torch.manual_seed(0)
    model = autopar.parallelize(nn.Linear(WIDTH, WIDTH, bias=False), "ddp", compression=text, backend="torch")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scales = torch.logspace(0, -0.7, WIDTH)
    wanted = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1))
    loss = torch.zeros(())
    for step in range(steps):
        seeded(step)
        batch = torch.randn(64, WIDTH) * scales
        loss = (model(batch) - batch @ wanted.T).square().mean() * WIDTH
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    total = loss.detach().clone()
    dist.all_reduce(total)
    return float(total) / dist.get_world_size()


def at_two_ranks() -> dict[str, Any]:
    """Everything that two ranks show, in one run."""
    dist.init_process_group("gloo")
    return {
        **{f"{text} {backend}": casts(text, unit, backend) for text, unit in UNITS.items() for backend in BACKENDS},
        **{f"topk {backend}": whole_topk(backend) for backend in BACKENDS},
        "overflow": overflowing(),
        "low rank": low_rank("torch"),
        "torch": against_torch(),
        "losses": {text: regression(text) for text in LOSSES},
    }


def at_three_ranks() -> dict[str, Any]:
    """Casts and top-k where the order of a sum counts."""
    dist.init_process_group("gloo")
    found = {text: casts(text, unit, "auto") for text, unit in UNITS.items()}
    mine, _ = twin_of(Model, compression="topk{ratio=0.05}")
    for step in range(3):
        backward(mine, step)
    return {**found, "topk": (everywhere(flat(mine)), sent(mine))}


UNITS = {"fp16": 2.0**-11, "bf16": 2.0**-8}
BACKENDS = ("torch", "shm")
TOPK, POWERSGD, WHOLE = "topk{ratio=0.02}", "powersgd{rank=1}", "topk{ratio=1}"
LOSSES = (WHOLE, TOPK, POWERSGD, *(f"{text[:-1]},error_feedback=false}}" for text in (TOPK, POWERSGD)))
GRAPH, HOOK = 33_792, 4_620  # bytes of the buckets of Model, by route


@pytest.fixture(scope="module")
def two() -> list[dict[str, Any]]:
    """What two ranks saw."""
    return run_ranks(at_two_ranks, 2, timeout=150.0)


@pytest.fixture(scope="module")
def three() -> list[dict[str, Any]]:
    """What three ranks saw."""
    return run_ranks(at_three_ranks, 3, timeout=100.0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("text", UNITS)
def test_casts_are_within_their_bound(two: Results, text: str, backend: str) -> None:
    """Not exact, half the bytes, and the same bits on all ranks; in the graph and behind hooks."""
    halves = [(text, GRAPH, GRAPH // 2), (text, HOOK, HOOK // 2)]
    for found in two:
        assert found[f"{text} {backend}"] == {"within": True, "exact": False, "everywhere": True, "sent": halves}


@pytest.mark.parametrize("text", UNITS)
def test_casts_at_three_ranks(three: Results, text: str) -> None:
    """The bound grows with the ranks, since each addition rounds."""
    assert all(found[text]["within"] and found[text]["everywhere"] for found in three)


def test_float16_equals_the_hook_of_torch(two: Results) -> None:
    """But for numbers below float16's normal range, where torch divides after rounding."""
    assert max(found["torch"] for found in two) <= 2.0**-24


def test_sums_that_overflow_are_sent_again(two: Results) -> None:
    """As they are, for that step; what is not finite in truth stays so, on all ranks."""
    for found in two:
        (repeated, bytes_then), (exact, bytes_after) = found["overflow"]["whole"]
        assert (repeated, exact) == (True, False)
        assert [nbytes for *_, nbytes in bytes_then] == [GRAPH * 3 // 2, HOOK * 3 // 2]
        assert [nbytes for *_, nbytes in bytes_after] == [GRAPH // 2, HOOK // 2]
        assert not found["overflow"]["finite"]
        assert found["overflow"]["everywhere"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_topk_of_everything_is_exact(two: Results, backend: str) -> None:
    """Bit for bit, with ``no_sync`` and with ``accumulate``."""
    assert [found[f"topk {backend}"] for found in two] == [[], []]


def test_topk_sends_values_and_places(three: Results) -> None:
    """Eight bytes for each element that travels; sums have the same bits on all ranks."""
    for found in three:
        same, sent_bytes = found["topk"]
        assert same
        assert [nbytes for *_, nbytes in sent_bytes] == [8 * 423, 8 * 58]  # of 8448 and 1155 elements


def test_powersgd_is_exact_where_its_rank_suffices(two: Results) -> None:
    """Up to rounding; at half the rank it is as far from the mean as torch's hook."""
    for found in two:
        result = found["low rank"]
        assert result["error 4"] < 1e-4
        assert result["error of torch 4"] < 1e-4
        assert 0.1 < result["error 2"] < 1.5 * result["error of torch 2"]
        assert result["everywhere 4"]
        assert result["everywhere 2"]


def test_powersgd_sends_thin_matrices(two: Results) -> None:
    """And what is no matrix as it is; hooks' buckets, too."""
    for found in two:
        assert found["low rank"]["sent 2"] == [("powersgd{rank=2}", 4224, 4 * (2 * 64 + 32))]
        same, hooks = found["low rank"]["hooks"]
        assert same
        assert {form for form, *_ in hooks} == {"powersgd{rank=8}"}
        assert all(after < before for _, before, after in hooks)


@pytest.mark.parametrize("text", [TOPK, POWERSGD])
def test_error_feedback_makes_the_difference(two: Results, text: str) -> None:
    """A regression comes down with it, and does not without."""
    losses = two[0]["losses"]
    assert losses[text] < 0.35 * losses[f"{text[:-1]},error_feedback=false}}"]


def test_a_program_that_says_another_compression_is_refused() -> None:
    """As a printed one does that was edited without its plan."""
    model = nn.Linear(2, 2)
    plan = compile_program(model, (torch.ones(1, 2),), {}, autopar.DDP(compression="bf16")).plan
    engine = BucketEngine(plan, dict(model.named_parameters()), LoneCollectives())
    parameters = [model.get_parameter(name) for name in plan.buckets[0].parameters]
    assert len(engine.sync(0, parameters, "bf16")) == 2
    with pytest.raises(PlanError, match=r"sends bucket 0 .* as it is, and the plan says bf16"):
        engine.sync(0, parameters)
