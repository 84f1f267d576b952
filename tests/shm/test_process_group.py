"""The backend of torch.distributed: what goes through shared memory, what through gloo, and torch's DDP on it."""

from __future__ import annotations

import copy
import os
import signal
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import autopar
import autopar.shm
from autopar.shm.process_group import NAME, SharedMemoryGroup
from tests.runtime.pairs import Ranks, differences, seeded


def _join(seconds: float = 20.0) -> SharedMemoryGroup:
    dist.init_process_group(NAME, timeout=timedelta(seconds=seconds))
    group = dist.group.WORLD
    assert isinstance(group, SharedMemoryGroup)
    assert group.communicator is not None
    return group


def _collectives() -> dict[str, bool]:
    group = _join()
    rank, size = dist.get_rank(), dist.get_world_size()
    everyone, total = list(range(size)), sum(range(size))
    results = {"backend": dist.get_backend() == NAME == group.getBackendName()}

    reduced = torch.full((5,), float(rank))
    work = dist.all_reduce(reduced, async_op=True)
    assert work is not None
    work.wait()
    results["all_reduce"] = reduced.tolist() == [total] * 5 and work.is_completed()
    dist.all_reduce(largest := torch.tensor([rank]), dist.ReduceOp.MAX)
    results["max"] = largest.item() == size - 1
    dist.broadcast(sent := torch.tensor([rank]), 1)
    results["broadcast"] = sent.item() == 1
    dist.all_gather(parts := [torch.zeros(2) for _ in everyone], torch.full((2,), float(rank)))
    results["all_gather"] = [part[0].item() for part in parts] == everyone
    dist.all_gather_into_tensor(flat := torch.zeros(size * 2), torch.full((2,), float(rank)))
    results["all_gather_into_tensor"] = flat[::2].tolist() == everyone
    dist.reduce_scatter_tensor(part := torch.zeros(3), torch.arange(3.0 * size))
    results["reduce_scatter_tensor"] = torch.equal(part, torch.arange(3.0 * size)[3 * rank :][:3] * size)
    dist.reduce_scatter(part, [torch.full((3,), float(number)) for number in everyone])
    results["reduce_scatter"] = part.tolist() == [rank * size] * 3
    dist.all_gather_object(objects := [None] * size, {"rank": rank})
    results["objects"] = objects == [{"rank": number} for number in everyone]
    dist.broadcast_object_list(texts := [f"from {rank}"], 0)
    results["object_list"] = texts == ["from 0"]
    sent_through = group.communicator._sequence
    results["functional"] = functional.all_reduce(torch.tensor([rank]), "sum", dist.group.WORLD).item() == total
    both = functional.all_reduce_coalesced([torch.tensor([rank]), torch.ones(3)], "sum", dist.group.WORLD)
    results["functional_coalesced"] = [one.tolist() for one in both] == [[total], [float(size)] * 3]
    gathered = functional.all_gather_tensor(torch.tensor([rank]), 0, dist.group.WORLD)
    results["functional_gather"] = gathered.tolist() == everyone
    scattered = functional.reduce_scatter_tensor(torch.arange(2.0 * size), "sum", 0, dist.group.WORLD)
    results["functional_scatter"] = scattered.tolist() == [2.0 * rank * size, (2.0 * rank + 1) * size]
    results["functional ones are shared"] = group.communicator._sequence == sent_through + 5
    dist.barrier()
    sub = dist.new_group([0, 1], backend=NAME)
    if rank < 2:
        dist.all_reduce(pair := torch.ones(1), group=sub)
        results["new_group"] = pair.item() == 2 and isinstance(sub, SharedMemoryGroup)
    return results


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_collectives(ranks: Ranks, world_size: int) -> None:
    """Each of torch.distributed's that goes through shared memory."""
    if world_size == 1:
        assert ranks(_alone, 1) == [2.0]
        return
    for results in ranks(_collectives, world_size):
        assert [name for name, right in results.items() if not right] == []


def _through_gloo() -> dict[str, bool]:
    _join()
    rank, results = dist.get_rank(), {}
    dist.all_reduce(bits := torch.tensor([1 << rank]), dist.ReduceOp.BOR)
    results["bitwise"] = bits.item() == 3
    if rank == 0:
        dist.send(torch.tensor([7]), 1)
    else:
        dist.recv(received := torch.tensor([0]), 0)
        results["send"] = received.item() == 7
    dist.reduce(reduced := torch.ones(5), 0)
    results["reduce"] = rank != 0 or reduced.tolist() == [2.0] * 5
    dist.gather(torch.tensor([rank]), parts := [torch.tensor([9]) for _ in range(2)] if rank == 0 else None)
    results["gather"] = parts is None or [part.item() for part in parts] == [0, 1]
    return results


def test_what_goes_through_gloo(ranks: Ranks) -> None:
    """Two ranks and no all-to-all: gloo itself loses one in some hundred fresh groups on a busy host."""
    for results in ranks(_through_gloo, 2):
        assert [name for name, right in results.items() if not right] == []


def _alone() -> float:
    _join()
    dist.all_reduce(tensor := torch.tensor([2.0]))
    dist.barrier()
    return tensor.item()


def _beside_gloo() -> float:
    dist.init_process_group("gloo")
    group = dist.new_group(backend=NAME)
    assert isinstance(group, SharedMemoryGroup)
    dist.all_reduce(tensor := torch.ones(1), group=group)
    dist.destroy_process_group(group)
    dist.all_reduce(tensor)
    return tensor.item()


def test_group_beside_gloo(ranks: Ranks) -> None:
    """``new_group`` with this backend, in a program that trains over gloo."""
    assert ranks(_beside_gloo, 2) == [4.0] * 2


def _trains() -> list[list[str]]:
    group = _join()
    assert group.communicator is not None
    gloo = dist.new_group(backend="gloo")
    torch.manual_seed(0)
    one = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 700))
    other, mine = copy.deepcopy(one), copy.deepcopy(one)
    on_shared, on_gloo = DistributedDataParallel(one), DistributedDataParallel(other, process_group=gloo)
    autopar.parallelize(mine, "ddp")
    before, found = group.communicator._sequence, []
    for step in range(3):
        for model in (on_shared, on_gloo, mine):
            seeded(step)
            model.zero_grad()
            model(torch.randn(4, 3, 8, 8)).square().sum().backward()
        found.append(differences(one, other) + differences(mine, other))
    assert group.communicator._sequence > before
    return found


def test_torchs_ddp_on_the_backend(ranks: Ranks) -> None:
    """The same bits as on gloo, and as autopar's strategy on the same group."""
    assert ranks(_trains, 2) == [[[], [], []]] * 2


def _dies() -> str:
    _join()
    dist.barrier()
    if dist.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    with pytest.raises(dist.DistBackendError) as caught:
        dist.all_reduce(torch.ones(5))
    return str(caught.value)


def test_errors_are_torchs(ranks: Ranks) -> None:
    """Users of torch.distributed catch its errors."""
    assert "rank 1 (process" in ranks(_dies, 2, lost=[1])[0]


def _elsewhere() -> tuple[float, bool, list[str]]:
    import warnings

    from autopar.shm import rendezvous

    rendezvous.host_name = lambda: os.environ["RANK"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dist.init_process_group(NAME)
    group = dist.group.WORLD
    assert isinstance(group, SharedMemoryGroup)
    dist.all_reduce(tensor := torch.ones(1))
    dist.barrier()
    return tensor.item(), group.communicator is None, [str(warning.message) for warning in caught]


def test_ranks_on_several_hosts_use_gloo(ranks: Ranks) -> None:
    """All of them, and rank 0 says why."""
    first, second = ranks(_elsewhere, 2)
    assert first[:2] == second[:2] == (2.0, True)
    assert any("goes through gloo: the ranks are on several hosts" in text for text in first[2])
