"""Divides a DataLoader among the ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch.distributed as dist
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from autopar.errors import UsageError
from autopar.runtime.group import launched_world_size

__all__ = ["ShardedLoader"]


class ShardedLoader(DataLoader[Any]):
    """A DataLoader over this rank's part of a dataset, in a new order at every iteration."""

    _last_epoch: int | None = None

    @classmethod
    def of(cls, loader: DataLoader[Any]) -> DataLoader[Any]:
        """This rank's part of another loader; the loader itself where there is one process.

        Raises:
            UsageError: the loader cannot be divided.
        """
        size = launched_world_size()
        if size is None or size == 1:
            return loader
        _refuse_indivisible(loader)
        if not dist.is_initialized():
            raise UsageError(
                "The process group is not there yet.",
                mend="Call autopar.parallelize(model) before autopar.shard(loader).",
            )
        sampler: DistributedSampler[Any] = DistributedSampler(
            loader.dataset, shuffle=isinstance(loader.sampler, RandomSampler), drop_last=loader.drop_last
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

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """The next epoch's batches; an epoch that ``sampler.set_epoch`` has set is kept."""
        assert isinstance(self.sampler, DistributedSampler)
        if self.sampler.epoch == self._last_epoch:
            self.sampler.set_epoch(self.sampler.epoch + 1)
        self._last_epoch = self.sampler.epoch
        return super().__iter__()


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
