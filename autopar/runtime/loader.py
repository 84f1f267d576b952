"""Divides a DataLoader among the ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch.distributed as dist
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from autopar.errors import UsageError
from autopar.runtime.group import launched_world_size

__all__ = ["ShardedLoader"]


class ShardedLoader(DataLoader[Any]):
    """A DataLoader over this rank's part of a dataset, in a new order at every iteration."""

    @classmethod
    def of(cls, loader: DataLoader[Any]) -> DataLoader[Any]:
        """This rank's part of another loader; the loader itself where there is one process.

        Raises:
            UsageError: the loader cannot be divided.
        """
        size = launched_world_size()
        if size is None or size == 1:
            return loader
        if isinstance(loader.dataset, IterableDataset):
            raise UsageError(
                "The loader's dataset is an IterableDataset, which has no index to divide.",
                mend="Let the dataset itself skip what other ranks read, and use the loader as it is.",
            )
        if type(loader.sampler) not in (RandomSampler, SequentialSampler) or loader.batch_size is None:
            raise UsageError(
                f"The loader has a sampler of its own ({type(loader.batch_sampler or loader.sampler).__name__}).",
                mend="Make the sampler rank-aware yourself, or give a loader with shuffle=True or False.",
            )
        if not dist.is_initialized():
            raise UsageError(
                "The process group is not there yet.", mend="Call autopar.parallelize(model) before autopar.shard(loader)."
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
        )

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        iterator = super().__iter__()
        assert isinstance(self.sampler, DistributedSampler)
        self.sampler.set_epoch(self.sampler.epoch + 1)
        return iterator
