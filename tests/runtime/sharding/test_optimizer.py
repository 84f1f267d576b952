"""Sharded optimizers: the parameters of unsharded ones, bit for bit, with a part of the state on each rank."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.optim import lr_scheduler

import autopar
from autopar.attach import attachment_of
from autopar.errors import OptionError, RankMismatchError, UsageError
from tests.ranks import run_ranks
from tests.runtime.pairs import differences

Make = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "Adam, foreach": lambda p: torch.optim.Adam(p, lr=0.01, foreach=True),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1),
    "SGD without state": lambda p: torch.optim.SGD(p, lr=0.05),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.005, centered=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
    "NAdam": torch.optim.NAdam,
    "Rprop": torch.optim.Rprop,
    "groups": lambda p: torch.optim.AdamW(
        [{"params": [q], "lr": 0.01 * (i + 1)} for i, q in enumerate(p) if i != 2]  # one parameter is left out
    ),
}
NOT_BY_ELEMENT: dict[str, Make] = {
    "Adafactor": torch.optim.Adafactor,
    "LBFGS": torch.optim.LBFGS,
    "SparseAdam": lambda p: torch.optim.SparseAdam(list(p)),
}


class Net(nn.Module):
    """Of odd sizes: no dims, none of its elements used, channels last, half precision, more ranks than rows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Linear(5, 7)
        self.scale, self.unused = nn.Parameter(torch.tensor(1.5)), nn.Linear(2, 2)
        self.low = nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Seven numbers for each image."""
        return self.head(self.norm(self.conv(x)).mean((2, 3))) * self.scale * self.low.float()


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    generator = torch.Generator().manual_seed(step * 10 + dist.get_rank())
    optimizer.zero_grad()
    model(torch.randn(4, 3, 6, 6, generator=generator)).square().sum().backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def _twins(make: Make) -> tuple[Any, ...]:
    torch.manual_seed(0)
    mine = Net()
    theirs = copy.deepcopy(mine)
    optimizers = make(mine.parameters()), make(theirs.parameters())
    autopar.parallelize(mine, "zero1", optimizer=optimizers[0])
    autopar.parallelize(theirs, "ddp")
    return mine, theirs, *optimizers


def _differing_states(mine: dict[str, Any], theirs: dict[str, Any]) -> list[Any]:
    found: list[Any] = [] if mine["param_groups"] == theirs["param_groups"] else ["groups"]
    found += [] if mine["state"].keys() == theirs["state"].keys() else ["parameters"]
    for number, state in theirs["state"].items():
        for name, value in state.items():
            other = mine["state"].get(number, {}).get(name)
            same = torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
            found += [] if same else [(number, name)]
    return found


def against_ddp(names: list[str]) -> dict[str, list[Any]]:
    """What differs from ``ddp`` in training, in state dicts and after loading one; and the part of the state held."""
    dist.init_process_group("gloo")
    found: dict[str, list[Any]] = {}
    for name in names:
        mine, theirs, one, other = _twins(OPTIMIZERS[name])
        schedules = [lr_scheduler.StepLR(optimizer, 2, 0.5) for optimizer in (one, other)]
        found[name] = []
        for step in range(5):
            _step(mine, one, step)
            _step(theirs, other, step)
            for schedule in schedules:
                schedule.step()
            found[name] += differences(mine, theirs, lambda p: p.detach())
            if step == 2:
                state = copy.deepcopy(other.state_dict())
                found[name] += _differing_states(one.state_dict(), state)
                one.load_state_dict(state)
                other.load_state_dict(copy.deepcopy(state))  # which may change the dtype of a value
        (sharded,) = attachment_of(mine).sharded  # type: ignore[union-attr]
        whole = sum(v.nbytes for s in other.state.values() for v in s.values() if isinstance(v, torch.Tensor))
        if whole and sharded.state_nbytes > whole / dist.get_world_size() + 200:
            found[name].append((sharded.state_nbytes, whole))
        autopar.unparallelize(mine)
        found[name] += _differing_states(one.state_dict(), other.state_dict())
    return found


@pytest.mark.parametrize(("world", "names"), [(2, list(OPTIMIZERS)), (3, ["AdamW", "SGD", "groups"])])
def test_training_equals_ddp(world: int, names: list[str]) -> None:
    """With schedules and clipping, through a state dict, and as a plain optimizer again in the end."""
    for found in run_ranks(against_ddp, world, names, timeout=100.0):
        assert found == {name: [] for name in names}


def oddities(folder: str) -> dict[str, Any]:
    """Closures, a model that is moved, sharding in the middle of training, checkpoints, and every refusal."""
    dist.init_process_group("gloo")
    found: dict[str, Any] = {}
    mine, theirs, one, other = _twins(OPTIMIZERS["AdamW"])
    for model, optimizer in ((mine, one), (theirs, other)):
        x = torch.full((2, 3, 6, 6), 1.0 + dist.get_rank())

        def closure(model: Any = model, optimizer: Any = optimizer, x: torch.Tensor = x) -> torch.Tensor:
            optimizer.zero_grad()
            loss: torch.Tensor = model(x).square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        _step(model, optimizer, 1)
        for parameter in model.parameters():  # as moving a model does
            parameter.data = parameter.data.clone()
        _step(model, optimizer, 2)
    found["closure, moved"] = differences(mine, theirs, lambda p: p.detach())
    autopar.shard_optimizer(theirs, other)  # it has state already
    for step in (3, 4):
        _step(mine, one, step)
        _step(theirs, other, step)
    found["sharded later"] = differences(mine, theirs, lambda p: p.detach())
    autopar.save(mine, one, folder, step=4)
    fresh = Net()
    plain = OPTIMIZERS["AdamW"](fresh.parameters())
    autopar.parallelize(fresh, "ddp")
    autopar.load(fresh, plain, folder)
    _step(mine, one, 5)
    _step(fresh, plain, 5)
    found["checkpoint"] = differences(mine, fresh, lambda p: p.detach())
    for name, make in NOT_BY_ELEMENT.items():
        with pytest.raises(UsageError, match=f"The {name} cannot be divided among ranks"):
            autopar.shard_optimizer(fresh, make(fresh.parameters()))
    with pytest.raises(UsageError, match=r"has a parameter of shape \(\) that is none of the model's"):
        autopar.shard_optimizer(fresh, plain := torch.optim.SGD(Net().parameters(), lr=0.1))
    with pytest.raises(UsageError, match="AdamW is sharded already"):
        autopar.shard_optimizer(mine, one)
    with pytest.raises(RankMismatchError, match="options of group 0"):
        autopar.shard_optimizer(fresh, torch.optim.SGD(fresh.parameters(), lr=0.1 * (1 + dist.get_rank())))
    return found


def test_odd_uses_and_refusals(tmp_path: Path) -> None:
    """What moves parameters or state does so without a difference to ``ddp``."""
    for found in run_ranks(oddities, 2, str(tmp_path), timeout=100.0):
        assert found == {"closure, moved": [], "sharded later": [], "checkpoint": []}


def test_one_process_needs_no_launcher() -> None:
    """All of the state is this process's."""
    model, twin = Net(), Net()
    twin.load_state_dict(model.state_dict())
    one, other = (OPTIMIZERS["AdamW"](m.parameters()) for m in (model, twin))
    autopar.parallelize(model, "zero1", optimizer=one)
    for m, optimizer in ((model, one), (twin, other)):
        for _ in range(2):
            optimizer.zero_grad()
            m(torch.ones(2, 3, 6, 6)).sum().backward()
            optimizer.step()
    assert differences(model, twin, lambda p: p.detach()) == []
    assert _differing_states(one.state_dict(), other.state_dict()) == []


def test_an_optimizer_for_a_strategy_that_leaves_it_alone() -> None:
    """It would look as if its state were divided."""
    model = nn.Linear(2, 2)
    with pytest.raises(OptionError, match="given to strategy 'ddp', which leaves optimizers alone"):
        autopar.parallelize(model, "ddp", optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(UsageError, match="no ranks that could share an optimizer"):
        autopar.shard_optimizer(model, torch.optim.SGD(model.parameters(), lr=0.1))
