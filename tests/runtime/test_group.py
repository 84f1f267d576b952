"""Joining: the launcher's group, a group that is there already, and none at all."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import autopar
from autopar.errors import LaunchError, UsageError
from autopar.runtime.group import _store_of_this_start, join, launched_world_size
from autopar.runtime.side_groups import _spare
from tests.runtime.pairs import Ranks, differences, local_mean


def test_without_a_launcher_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No group is made, and none is needed."""
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    group = join(torch.device("cpu"), timeout=1.0)
    assert (group.handle, group.rank, group.world_size) == (None, 0, 1)
    assert str(group) == "one process"
    assert launched_world_size() is None


def joined() -> tuple[str, int, int]:
    """What a launched process joins."""
    group = join(torch.device("cpu"), timeout=20.0)
    assert join(torch.device("cpu"), timeout=20.0) == group
    return str(group), group.rank, launched_world_size() or 0


def test_launched_processes_join_one_group(ranks: Ranks) -> None:
    """Rank and size are the launcher's; joining again gives the same group."""
    assert ranks(joined, 2) == [("rank 0 of 2 over gloo", 0, 2), ("rank 1 of 2 over gloo", 1, 2)]


def launched_alone() -> tuple[int, bool]:
    """World size of a launch of one process, and whether it trains."""
    model = autopar.parallelize(nn.Linear(3, 2))
    model(torch.randn(4, 3)).sum().backward()
    return dist.get_world_size(), model.weight.grad is not None


def test_a_launch_of_one_process(ranks: Ranks) -> None:
    """``--nproc 1`` is no special case for the user."""
    assert ranks(launched_alone, 1) == [(1, True)]


def group_that_is_there() -> tuple[bool, list[str]]:
    """Whether a group made by the script is used and kept, with what differs from the mean."""
    dist.init_process_group("gloo")
    before = dist.group.WORLD
    model, plain = _trained_with(None)
    autopar.unparallelize(model)
    return dist.group.WORLD is before, differences(model, plain)


def test_a_group_that_is_there_is_used_and_left_alone(ranks: Ranks) -> None:
    """A script may make its process group itself."""
    assert ranks(group_that_is_there, 2) == [(True, [])] * 2


def groups_of_two() -> list[str]:
    """Names of what differs from the mean over this rank's half of four ranks."""
    dist.init_process_group("gloo")
    halves = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    mine = halves[dist.get_rank() // 2]
    model, plain = _trained_with(mine)
    return differences(model, plain)


def test_a_group_of_some_ranks(ranks: Ranks) -> None:
    """Gradients are averaged within ``process_group`` alone, from its own first rank's values."""
    assert ranks(groups_of_two, 4) == [[]] * 4


def _trained_with(group: dist.ProcessGroup | None) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(dist.get_rank(group))
    model = nn.Linear(3, 2)
    autopar.parallelize(model, "ddp", process_group=group)
    plain = nn.Linear(3, 2)
    plain.load_state_dict(model.state_dict())
    x = torch.full((4, 3), float(dist.get_rank() + 1))
    for one in (model, plain):
        one(x).square().mean().backward()
    if group is None:
        local_mean(plain)
    else:
        for p in plain.parameters():
            assert p.grad is not None
            p.grad.mul_(0.5)
            dist.all_reduce(p.grad, group=group)
    return model, plain


def torchs_ddp_inside() -> list[str]:
    """What is said to a model in torch's DDP, and to one with such a part."""
    dist.init_process_group("gloo")
    wrapped = DistributedDataParallel(nn.Linear(3, 2))
    texts = []
    for model in (wrapped, nn.Sequential(wrapped)):
        with pytest.raises(UsageError) as caught:
            autopar.parallelize(model, "ddp")
        texts.append(str(caught.value))
    return texts


def test_torchs_ddp_is_refused(ranks: Ranks) -> None:
    """Gradients would be reduced twice."""
    whole, part = ranks(torchs_ddp_inside, 1)[0]
    assert whole == "The model is wrapped in torch's DistributedDataParallel. Give the model inside: model.module."
    assert "The submodule '0' of this Sequential is parallel already, as torch's DistributedDataParallel." in part


def copies_train() -> list[list[str]]:
    """What differs from the mean, for a deep copy made before and one made after the first step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    plain = copy_of(model)
    early = copy_of(autopar.parallelize(model, "ddp"))
    model(torch.randn(4, 3)).sum().backward()
    late = copy_of(model)
    late.zero_grad()
    found = []
    x = torch.full((4, 3), float(dist.get_rank() + 1))
    plain(x).square().mean().backward()
    local_mean(plain)
    for twin in (early, late):
        twin(x).square().mean().backward()
        found.append(differences(twin, plain))
    return found


def copy_of(model: nn.Module) -> Any:
    """A deep copy."""
    import copy

    return copy.deepcopy(model)


def test_deep_copies_train_in_parallel(ranks: Ranks) -> None:
    """A copy has buckets of its own and averages as its original does."""
    assert ranks(copies_train, 2) == [[[], []]] * 2


def unreachable_address() -> str:
    """What is said where nobody listens."""
    with pytest.raises(LaunchError) as caught:
        autopar.parallelize(nn.Linear(3, 2), "ddp", timeout=1.0)
    return str(caught.value)


def test_address_where_nobody_listens(ranks: Ranks) -> None:
    """The address is named."""
    port = os.environ.get("UNUSED_PORT", "9")
    (text,) = ranks(unreachable_address, 1, environment={"RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": port})
    assert f"Rank 1 could not join the process group at 127.0.0.1:{port}: " in text
    assert "Check that all ranks are started" in text


def changes_on_all_ranks() -> list[str]:
    """Names of what differs from the mean after dtype, frozen layers and submodules changed."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    plain = copy_of(model)
    autopar.parallelize(model, "ddp")
    found: list[str] = []

    def compare(dtype: torch.dtype) -> None:
        torch.manual_seed(dist.get_rank())
        x = torch.randn(4, 3, dtype=dtype)
        for one in (model, plain):
            one.zero_grad()
            one(x).square().mean().backward()
        local_mean(plain)
        found.extend(differences(model, plain))

    compare(torch.float32)
    for one in (model, plain):
        one[0].requires_grad_(False)
    compare(torch.float32)
    for one in (model, plain):
        one[0].requires_grad_(True)
    compare(torch.float32)
    torch.manual_seed(5)
    model[2] = nn.Linear(3, 4)
    plain[2] = copy_of(model[2])
    compare(torch.float32)
    for one in (model, plain):
        one.double()
    compare(torch.float64)
    return found


def test_models_that_change_on_all_ranks(ranks: Ranks) -> None:
    """Freezing, unfreezing, replacing a layer and changing dtype start anew and stay right."""
    assert ranks(changes_on_all_ranks, 2) == [[], []]


def unparallelized() -> tuple[bool, bool]:
    """Whether gradients are local and no hook is left after the way back."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.LSTM(3, 3), _First(), nn.Linear(3, 2))
    autopar.parallelize(model, "ddp")
    x = torch.full((4, 2, 3), float(dist.get_rank() + 1))
    model(x).sum().backward()
    autopar.unparallelize(model)
    model.zero_grad()
    plain = copy_of(model)
    for one in (model, plain):
        one(x).sum().backward()
    hooks = any(p._post_accumulate_grad_hooks for p in model.parameters())
    return not differences(model, plain), not hooks


class _First(nn.Module):
    def forward(self, result: tuple[torch.Tensor, Any]) -> torch.Tensor:
        return result[0]


def test_unparallelize_ends_communication(ranks: Ranks) -> None:
    """Afterwards gradients are local, and no hook of ours is left."""
    assert ranks(unparallelized, 2) == [(True, True)] * 2


def side_groups_again() -> bool:
    """Trains models one after another whose norms need a group of their own; the second of them has two."""
    group = join(torch.device("cpu"), timeout=20.0)
    used = []
    for count in (1, 2, 1):
        models = [autopar.parallelize(nn.Sequential(nn.Linear(2, 2), nn.SyncBatchNorm(2)), "ddp") for _ in range(count)]
        for model in models:
            model(torch.randn(3, 2)).sum().backward()
        used.append(len(_spare[group.handle][("gloo", group.timeout)]))  # type: ignore[index]
        for model in models:
            autopar.unparallelize(model)
    return used == [0, 0, 1]


def test_groups_of_their_own_are_used_again(ranks: Ranks) -> None:
    """One that was made after another's end would have its name, and look for its ranks at addresses that are gone."""
    assert ranks(side_groups_again, 2, environment={"AUTOPAR_BACKEND": "torch"}) == [True, True]


@pytest.mark.parametrize(("start", "hosts", "place"), [("0", 1, "key"), ("2", 1, "start_2/key"), ("2", 2, "key")])
def test_a_restart_does_not_see_what_earlier_starts_left(
    start: str, hosts: int, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun's store outlives the ranks: addresses that are in it may be those of ranks that died."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True)
    environment = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port, "RANK": 0, "WORLD_SIZE": hosts, "LOCAL_WORLD_SIZE": 1,
        "TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": start,
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    arguments = _store_of_this_start(timedelta(seconds=10))
    own = arguments.get("store", store)
    own.set("key", "address")
    assert store.check([place])
