"""``"auto"`` picks by what is there."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autopar.errors import LaunchError, OptionError
from autopar.strategies import DDP, DataParallel
from autopar.strategies.auto import pick_strategy


@pytest.fixture(autouse=True)
def plain_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launcher, no CUDA."""
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def _launch(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    for name, value in (("RANK", 0), ("WORLD_SIZE", size), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", 1)):
        monkeypatch.setenv(name, str(value))


def _cuda(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_one_process_without_devices() -> None:
    """ddp at world size 1."""
    assert pick_strategy(nn.Linear(2, 2)) == (DDP(), "one process, one device: nothing to communicate")


def test_launched_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several ranks: ddp."""
    _launch(monkeypatch, 4)
    assert pick_strategy(nn.Linear(2, 2)) == (DDP(), "4 ranks were launched")


def test_launched_ranks_win_over_local_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch decides, whatever devices the host has."""
    _launch(monkeypatch, 2)
    _cuda(monkeypatch, 8)
    assert isinstance(pick_strategy()[0], DDP)


def test_several_cuda_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process with several CUDA devices: data_parallel."""
    _cuda(monkeypatch, 2)
    strategy, reason = pick_strategy()
    assert isinstance(strategy, DataParallel)
    assert reason == "one process, 2 CUDA devices"


def test_model_on_the_cpu_beside_cuda_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's own device counts: on the CPU it stays one replica."""
    _cuda(monkeypatch, 2)
    assert isinstance(pick_strategy(nn.Linear(2, 2))[0], DDP)


def test_options_reach_the_strategy() -> None:
    """Options are those of the strategy that is picked."""
    assert pick_strategy(None, {"bucket_cap_mb": 3})[0] == DDP(bucket_cap_mb=3)


def test_options_of_another_strategy_are_refused() -> None:
    """An option that the picked strategy lacks is named with it."""
    with pytest.raises(OptionError, match="Strategy 'ddp' has no option 'replicas'"):
        pick_strategy(None, {"replicas": 2})


def test_broken_launch_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half an environment is an error, not one process."""
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(LaunchError, match="WORLD_SIZE"):
        pick_strategy()
