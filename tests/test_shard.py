"""``autopar.shard``: each rank its part of a DataLoader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    WeightedRandomSampler,
)

import autopar
from autopar.errors import UsageError
from autopar.runtime.group import join
from tests.runtime.pairs import Ranks


class _Numbers(Dataset[int]):
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


class _Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(4))


class _OwnLoader(DataLoader[Any]):
    def __iter__(self) -> Any:
        return iter([])


def _read(loader: DataLoader[Any]) -> list[int]:
    return [number for batch in loader for number in batch.tolist()]


def _join() -> None:
    join(torch.device("cpu"), timeout=30.0)


def test_one_process_gets_the_loader_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to divide."""
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    loader = DataLoader(_Numbers(8), batch_size=2)
    assert autopar.shard(loader) is loader


def epochs(shuffle: bool, count: int) -> list[list[int]]:
    """What this rank reads in three epochs."""
    _join()
    loader = autopar.shard(DataLoader(_Numbers(count), batch_size=2, shuffle=shuffle))
    assert loader.batch_size == 2
    assert all(len(batch) <= 2 for batch in loader)
    return [_read(loader) for _ in range(3)]


def test_parts_are_disjoint_and_cover_the_dataset(ranks: Ranks) -> None:
    """In every epoch each sample is read once, by one rank."""
    parts = ranks(epochs, 3, True, 12)
    for epoch in range(3):
        assert sorted(number for part in parts for number in part[epoch]) == list(range(12))


def test_epochs_are_shuffled_anew(ranks: Ranks) -> None:
    """Every iteration has another order, without ``set_epoch``."""
    first, second, third = ranks(epochs, 2, True, 40)[0]
    assert first != second
    assert second != third


def test_order_is_kept_without_shuffling(ranks: Ranks) -> None:
    """A loader that does not shuffle is dealt out in order, in every epoch."""
    one, other = ranks(epochs, 2, False, 8)
    assert one == [[0, 2, 4, 6]] * 3
    assert other == [[1, 3, 5, 7]] * 3


def test_ranks_have_the_same_number_of_batches(ranks: Ranks) -> None:
    """Where the dataset does not divide, samples of the start are repeated."""
    one, other = ranks(epochs, 2, False, 7)
    assert one[0] == [0, 2, 4, 6]
    assert other[0] == [1, 3, 5, 0]


def kept_settings() -> tuple[Any, ...]:
    """Settings of the loader that come through."""
    _join()
    loader = DataLoader(_Numbers(10), batch_size=3, drop_last=True, collate_fn=list, num_workers=0, timeout=0)
    mine = autopar.shard(loader)
    return mine.batch_size, mine.drop_last, mine.collate_fn is list, len(mine), [len(batch) for batch in mine]


def test_settings_are_kept(ranks: Ranks) -> None:
    """Batch size, drop_last and collate function are the loader's."""
    assert ranks(kept_settings, 2) == [(3, True, True, 1, [3])] * 2


def resumed() -> tuple[bool, bool, bool]:
    """Whether an epoch that the user sets is used, once, and is followed by the next."""
    _join()
    first, second = (autopar.shard(DataLoader(_Numbers(40), batch_size=4, shuffle=True)) for _ in range(2))
    orders = [_read(first) for _ in range(4)]
    second.sampler.set_epoch(2)  # type: ignore[attr-defined]
    again, after = _read(second), _read(second)
    return again == orders[2], after == orders[3], orders[0] != orders[2]


def test_an_epoch_that_is_set_is_kept(ranks: Ranks) -> None:
    """Resuming at epoch 2 goes on as the run that was broken off."""
    assert ranks(resumed, 2) == [(True, True, True)] * 2


_REFUSED = {
    "iterable": (lambda: DataLoader(_Stream()), "IterableDataset, which has no index to divide"),
    "sampler": (
        lambda: DataLoader(_Numbers(4), sampler=WeightedRandomSampler([1.0] * 4, 4)),
        r"a sampler of its own \(WeightedRandomSampler\)",
    ),
    "batch_sampler": (
        lambda: DataLoader(_Numbers(4), batch_sampler=_OwnBatches(SequentialSampler(_Numbers(4)), 2, False)),
        r"a batch sampler of its own \(_OwnBatches\)",
    ),
    "unbatched": (lambda: DataLoader(_Numbers(4), batch_size=None), "no automatic batches"),
    "replacement": (
        lambda: DataLoader(_Numbers(4), sampler=RandomSampler(_Numbers(4), replacement=True)),
        "does not draw every sample once",
    ),
    "part": (
        lambda: DataLoader(_Numbers(4), sampler=RandomSampler(_Numbers(4), num_samples=2)),
        "does not draw every sample once",
    ),
    "loader": (lambda: _OwnLoader(_Numbers(4)), "_OwnLoader with an iteration of its own"),
    "twice": (
        lambda: autopar.shard(DataLoader(_Numbers(4))),
        r"a ShardedLoader with an iteration of its own|a sampler of its own \(DistributedSampler\)",
    ),
}


class _OwnBatches(BatchSampler):
    pass


def refused(case: str) -> None:
    """Fails unless the loader is refused with its text."""
    _join()
    build, text = _REFUSED[case]
    loader = build()
    with pytest.raises(UsageError, match=text):
        autopar.shard(loader)


def test_loaders_that_cannot_be_divided_are_refused(ranks: Ranks) -> None:
    """Each text says what the loader has."""
    assert ranks(all_refused, 2) == [None, None]


def all_refused() -> None:
    """Every case, in one pair of processes."""
    for case in _REFUSED:
        refused(case)


def too_early() -> str:
    """What is said before the group is there."""
    with pytest.raises(UsageError) as caught:
        autopar.shard(DataLoader(_Numbers(4)))
    return str(caught.value)


def test_shard_before_parallelize_is_refused(ranks: Ranks) -> None:
    """The order of the calls is the mend."""
    assert "Call autopar.parallelize(model) before autopar.shard(loader)." in ranks(too_early, 2)[0]
