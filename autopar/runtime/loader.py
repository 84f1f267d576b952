"""Divides a DataLoader among the ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

from autopar.errors import UsageError
from autopar.runtime.group import launched_world_size
from autopar.runtime.sampler import RankSampler

__all__ = ["ShardedLoader"]


class ShardedLoader(DataLoader[Any]):
    """A DataLoader over this rank's part of a dataset, in a new order at every iteration.

    Its place is the batch that it handed out last; ``state_dict`` and ``load_state_dict`` keep it, also for another
    number of ranks.
    """

    _last_epoch: int | None = None
    _handed_out = 0  # batches of this rank in the iteration that was begun last

    @classmethod
    def of(cls, loader: DataLoader[Any], *, resumable: bool = False) -> DataLoader[Any]:
        """This rank's part of another loader; where there is one process, the loader itself unless ``resumable``.

        Raises:
            UsageError: the loader cannot be divided.
        """
        size = launched_world_size() or 1
        if size == 1 and not resumable:
            return loader
        _refuse_indivisible(loader)
        if size > 1 and not dist.is_initialized():
            raise UsageError(
                "The process group is not there yet.",
                mend="Call autopar.parallelize(model) before autopar.shard(loader).",
            )
        sampler = RankSampler(
            loader.dataset,
            num_replicas=size,
            rank=dist.get_rank() if size > 1 else 0,
            shuffle=isinstance(loader.sampler, RandomSampler),
            drop_last=loader.drop_last,
        )
        return cls(
            loader.dataset,
            batch_size=loader.batch_size,
            sampler=sampler,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            drop_last=loader.drop_last,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            generator=loader.generator,
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
            in_order=loader.in_order,
        )

    @property
    def epoch(self) -> int:
        """The epoch of the batch that comes next, from 0."""
        return self._place()[0]

    def state_dict(self) -> dict[str, int]:
        """The place: the epoch, and how many samples all ranks together have read of it."""
        epoch, read = self._place()
        return {"epoch": epoch, "read": read}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Makes the next iteration go on at this place."""
        self._sampler.set_epoch(state["epoch"])
        self._sampler.read = state["read"]
        self._last_epoch = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """The next epoch's batches; an epoch that ``sampler.set_epoch`` has set is kept."""
        sampler = self._sampler
        if sampler.epoch == self._last_epoch:
            sampler.set_epoch(sampler.epoch + 1)
        self._last_epoch, self._handed_out = sampler.epoch, 0
        # An iterator draws a random number when it is made, which a run that goes on has drawn before.
        state = torch.get_rng_state() if sampler.read else None
        batches = super().__iter__()
        if state is not None:
            torch.set_rng_state(state)
        return self._counting(batches)

    def _counting(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            self._handed_out += 1
            yield batch

    @property
    def _sampler(self) -> RankSampler:
        assert isinstance(self.sampler, RankSampler)
        return self.sampler

    def _place(self) -> tuple[int, int]:
        sampler = self._sampler
        if sampler.epoch != self._last_epoch:  # not begun
            return sampler.epoch, sampler.read
        assert self.batch_size is not None
        step = self.batch_size * sampler.num_replicas
        count = len(sampler.dataset)  # type: ignore[arg-type]
        left = count - sampler.read
        steps = left // step if self.drop_last else -(-left // step)
        if self._handed_out >= steps:
            return sampler.epoch + 1, 0
        return sampler.epoch, sampler.read + self._handed_out * step


def _refuse_indivisible(loader: DataLoader[Any]) -> None:
    if isinstance(loader.dataset, IterableDataset):
        raise UsageError(
            "The loader's dataset is an IterableDataset, which has no index to divide.",
            mend="Let the dataset itself skip what other ranks read, and use the loader as it is.",
        )
    if type(loader).__iter__ is not DataLoader.__iter__:
        raise UsageError(
            f"The loader is a {type(loader).__name__} with an iteration of its own, which a new loader would lose.",
            mend="Give a plain torch.utils.data.DataLoader.",
        )
    batches, sampler = loader.batch_sampler, loader.sampler
    if type(batches) is not BatchSampler:
        kind = "no automatic batches" if batches is None else f"a batch sampler of its own ({type(batches).__name__})"
    elif type(sampler) not in (RandomSampler, SequentialSampler):
        kind = f"a sampler of its own ({type(sampler).__name__})"
    elif isinstance(sampler, RandomSampler) and (sampler.replacement or len(sampler) != len(sampler.data_source)):
        kind = "a RandomSampler that does not draw every sample once"
    else:
        return
    raise UsageError(
        f"The loader has {kind}.",
        mend="Make the sampler rank-aware yourself, or give a loader with batch_size= and shuffle=True or False.",
    )
