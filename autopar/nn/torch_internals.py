"""What torch and trainers reach for in a ``DistributedDataParallel`` beside its public surface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from autopar.nn.ignored import data_parallel_params, set_ignored
from autopar.nn.logging_data import logging_data
from autopar.runtime.ddp import DDPExecutor

if TYPE_CHECKING:
    from autopar.nn.distributed import DistributedDataParallel

__all__ = ["Reducer", "TorchInternals"]


class Reducer:
    """The methods of torch's reducer that trainers call around a backward of their own.

    Accelerate's ``trigger_sync_in_backward`` and Lightning's manual optimization run a forward without
    synchronisation and decide at the backward that it is to be synchronised after all.

    Args:
        executor: of the wrapped module.
    """

    def __init__(self, executor: DDPExecutor) -> None:
        self._engine = executor.engine

    def prepare_for_backward(self, outputs: Any) -> None:
        """Synchronises the next backward, whatever its forwards were told; which outputs it starts at is no matter."""
        if self._engine is not None:
            self._engine.synchronise_next()

    def _rebuild_buckets(self) -> bool:
        return False  # they are right from the first step on

    def _delay_all_reduce(self) -> None:
        """Nothing: the first backward of a static graph has sent its buckets already."""


class TorchInternals:
    """The part of ``DistributedDataParallel`` that only torch itself and trainers use.

    Attributes:
        require_forward_param_sync: set by trainers; buffers travel with every synchronised backward anyway.
    """

    executor: Callable[[], DDPExecutor]
    require_forward_param_sync = True
    _set_params_and_buffers_to_ignore_for_model = staticmethod(set_ignored)

    @property
    def reducer(self) -> Reducer:
        """What decides over a backward that has not begun."""
        return Reducer(self.executor())

    @staticmethod
    def _get_data_parallel_params(module: nn.Module, named_params: bool = False) -> Iterator[Any]:
        return data_parallel_params(module, named_params)

    def _get_ddp_logging_data(self) -> dict[str, Any]:
        return logging_data(cast("DistributedDataParallel", self))
