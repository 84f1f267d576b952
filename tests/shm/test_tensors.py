"""Tensors from anywhere: other memory, odd layouts, no elements, more than the staging area holds."""

from __future__ import annotations

import gc
import os

import pytest
import torch
from torch import nn

from autopar.errors import UsageError
from tests.runtime.pairs import Ranks
from tests.shared_files import shared_files
from tests.shm.groups import communicating


def _layouts() -> list[bool]:
    with communicating() as group:
        size = group.world_size
        results = []
        for tensor in (
            torch.ones(3, 5).t(),
            torch.ones(4, 4, 4)[:, ::2, 1:],
            torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last),
            torch.ones(0, 7),
            torch.tensor(1.0),
            nn.Parameter(torch.ones(6)),
        ):
            group.all_reduce(tensor).wait()
            results.append(bool((tensor == size).all()))
        return results


def test_layouts(ranks: Ranks) -> None:
    """Transposed, strided, channels last, empty, a scalar, and one that requires grad."""
    assert ranks(_layouts, 2) == [[True] * 6] * 2


def _beyond_staging() -> list[bool]:
    count = 5_000_003  # 20 MB: five chunks
    with communicating() as group:
        one = torch.arange(count, dtype=torch.float32).remainder_(1000) + group.rank
        expected = one * 2 + (1 - 2 * group.rank)
        apart = torch.zeros(count, 2)[:, 0].copy_(one)
        works = [group.all_reduce(one), group.all_reduce(apart)]
        for work in works:
            work.wait()
        gathered = [torch.zeros(count) for _ in range(2)]
        group.all_gather(gathered, torch.full((count,), float(group.rank))).wait()
        return [
            torch.equal(one, expected),
            torch.equal(apart, expected),
            all(bool((part == number).all()) for number, part in enumerate(gathered)),
        ]


def test_more_than_the_staging_area_holds(ranks: Ranks) -> None:
    """In chunks, also where the result is not contiguous, and two at a time."""
    assert ranks(_beyond_staging, 2) == [[True] * 3] * 2


def _memory_comes_back() -> tuple[int, int]:
    with communicating() as group:
        kept = group.empty(1000, torch.float32).fill_(7)
        segments = len(group.arena.segments)
        for _ in range(200):
            tensor = group.empty(200_000, torch.float32)
            group.all_reduce(tensor).wait()
            del tensor
        gc.collect()
        assert bool((kept == 7).all())
        return segments, len(group.arena.segments)


def test_memory_of_tensors_that_are_gone_is_used_again(ranks: Ranks) -> None:
    """160 MB of tensors, one after the other, in the first segment."""
    assert ranks(_memory_comes_back, 2) == [(1, 1)] * 2


def _grows() -> list[bool]:
    with communicating() as group:
        tensors = [group.empty(400_000, torch.float32).fill_(group.rank + n) for n in range(12)]
        works = [group.all_reduce(tensor) for tensor in tensors]
        for work in works:
            work.wait()
        assert len(group.arena.segments) > 1
        return [bool((tensor == 1 + 2 * n).all()) for n, tensor in enumerate(tensors)]


def test_segments_are_added_and_mapped_by_the_others(ranks: Ranks) -> None:
    """A peer meets a segment for the first time within an operation."""
    assert ranks(_grows, 2) == [[True] * 12] * 2


def _outlives() -> list[float]:
    with communicating() as group:
        tensor = group.empty(4, torch.float32).fill_(1.0)
        group.all_reduce(tensor).wait()
    del group
    gc.collect()
    return (tensor + 1).tolist()


def test_tensors_outlive_the_communicator(ranks: Ranks) -> None:
    """Gradients are read after the model is no longer parallel."""
    assert ranks(_outlives, 2) == [[3.0] * 4] * 2


def _not_carried() -> None:
    with communicating() as group:
        assert not group.supports(torch.ones(2, 2).to_sparse())
        assert not group.supports(torch.ones(2, device="meta"))
        with pytest.raises(UsageError, match="dense tensors on the CPU"):
            group.broadcast(torch.ones(2, 2).to_sparse())
        with pytest.raises(UsageError, match="one tensor for each rank"):
            group.all_gather([torch.ones(2)] * 3, torch.ones(2))


def test_what_shared_memory_cannot_carry(ranks: Ranks) -> None:
    """Sparse tensors and other devices are refused, on this rank and before anything is sent."""
    ranks(_not_carried, 2)


def _leaves_nothing() -> tuple[set[str], bool]:
    before = shared_files()
    with communicating() as group:
        group.all_reduce(torch.ones(100_000)).wait()
        named = shared_files() - before
        descriptors = [segment.fd for segment in group.arena.segments]
    return named, any(os.path.exists(f"/proc/self/fd/{fd}") for fd in descriptors)


def test_nothing_has_a_name(ranks: Ranks) -> None:
    """/dev/shm stays as it was, and the file descriptors are closed at the end."""
    assert ranks(_leaves_nothing, 2) == [(set(), False)] * 2
