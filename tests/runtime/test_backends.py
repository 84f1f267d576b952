"""What carries the gradients: chosen alike on all ranks, or forced, and the bits are the same."""

from __future__ import annotations

import os
import warnings

import pytest
import torch
from torch import nn

import autopar
from autopar.attach import attachment_of
from autopar.errors import LaunchError, OptionError
from autopar.runtime.backends import SharedMemoryCollectives
from autopar.runtime.ddp import DDPExecutor
from autopar.shm import rendezvous
from autopar.shm.segment import Segment
from tests.runtime.pairs import Ranks


def _collectives(model: nn.Module) -> str:
    attachment = attachment_of(model)
    assert attachment is not None
    executor = attachment.executor
    assert isinstance(executor, DDPExecutor)
    return type(executor.connections.start(hooked=False)).__name__


def _trained(**options: str) -> tuple[str, list[float]]:
    torch.manual_seed(0)
    model = autopar.parallelize(nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 2)), "ddp", **options)
    rank = int(os.environ["RANK"])
    for step in range(3):
        model.zero_grad()
        model(torch.randn(4, 6, generator=torch.Generator().manual_seed(10 * rank + step))).sum().backward()
    gradients = [float(value) for p in model.parameters() if p.grad is not None for value in p.grad.flatten()]
    return _collectives(model), gradients


def _every_way() -> list[tuple[str, list[float]]]:
    return [_trained(), _trained(backend="shm"), _trained(backend="torch")]


def test_backends_give_the_same_bits(ranks: Ranks) -> None:
    """On three ranks, where the order of the sum shows; left alone, shared memory is taken."""
    for (auto, one), (shm, two), (torchs, three) in ranks(_every_way, 3, environment={"AUTOPAR_BACKEND": None}):
        assert (auto, shm, torchs) == (
            "SharedMemoryCollectives",
            "SharedMemoryCollectives",
            "TorchCollectives",
        )
        assert one == two == three


def test_variable_decides_where_nothing_is_said(ranks: Ranks) -> None:
    """For scripts that cannot be edited; what the code says wins."""
    for default, said, _ in ranks(_every_way, 2, environment={"AUTOPAR_BACKEND": "torch"}):
        assert (default[0], said[0]) == ("TorchCollectives", "SharedMemoryCollectives")


def _apart() -> tuple[str, str, list[str]]:
    rendezvous.host_name = lambda: os.environ["RANK"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        name, _ = _trained()
    with pytest.raises(LaunchError) as refused:
        _trained(backend="shm")
    return name, str(refused.value), [str(w.message) for w in caught if "shared memory" in str(w.message)]


def test_ranks_on_several_hosts(ranks: Ranks) -> None:
    """gloo carries on, rank 0 says it once, and asking for shared memory is an error on all ranks."""
    results = ranks(_apart, 2, environment={"AUTOPAR_BACKEND": None})
    for name, text, _ in results:
        assert name == "TorchCollectives"
        assert "Shared memory cannot carry the gradients: the ranks are on several hosts." in text
    assert [len(said) for _, _, said in results] == [1, 0]
    assert "travel over rank 0 of 2 over gloo" in results[0][2][0]


def _no_memory() -> str:
    def create(nbytes: int, *, sharers: int = 1) -> Segment:
        raise OSError(28, "No space left on device")

    if os.environ["RANK"] == "1":
        Segment.create = create  # type: ignore[method-assign, assignment]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _trained()[0]


def test_no_memory_on_one_rank(ranks: Ranks) -> None:
    """Then no rank takes shared memory."""
    assert ranks(_no_memory, 2, environment={"AUTOPAR_BACKEND": None}) == ["TorchCollectives"] * 2


def _runs_out() -> str:
    group_memory = SharedMemoryCollectives.empty
    model = autopar.parallelize(nn.Linear(4, 2), "ddp", backend="shm")
    model(torch.ones(1, 4)).sum().backward()
    attachment = attachment_of(model)
    assert attachment is not None
    assert isinstance(attachment.executor, DDPExecutor)
    collectives = attachment.executor.connections.start(hooked=False)
    assert isinstance(collectives, SharedMemoryCollectives)
    with pytest.raises(LaunchError) as caught:
        group_memory(collectives, 1 << 52, torch.float32, torch.device("cpu"))
    return str(caught.value)


def test_memory_that_runs_out_later(ranks: Ranks) -> None:
    """An error that says how much was asked for, not a signal."""
    for number, text in enumerate(ranks(_runs_out, 2)):
        assert f"Rank {number} got no shared memory for {1 << 52} torch.float32" in text


def test_unknown_backend_is_refused() -> None:
    """Before anything is started."""
    with pytest.raises(OptionError, match="Known: auto, shm, torch"):
        autopar.parallelize(nn.Linear(2, 2), "ddp", backend="carrier pigeon")


def _unknown_variable() -> str:
    with pytest.raises(OptionError) as caught:
        _trained()
    return str(caught.value)


def test_unknown_variable_is_refused(ranks: Ranks) -> None:
    """It names the variable."""
    for text in ranks(_unknown_variable, 2, environment={"AUTOPAR_BACKEND": "pigeon"}):
        assert "AUTOPAR_BACKEND is 'pigeon'." in text
