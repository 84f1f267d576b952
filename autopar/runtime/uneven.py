"""Uneven inputs: a rank that has run out of batches keeps the others company until they are done.

Inside a join context every forward begins with a small message in which all ranks say what the step
will be; a rank without a batch then takes part in the step's messages with zeros.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from autopar.runtime.agreement import copy_from_rank, message_device
from autopar.runtime.ddp import DDPExecutor

__all__ = ["UnevenInputs"]

_ABSENT = -1


class UnevenInputs:
    """What a rank says and does about each step while others may have no batch any more.

    Args:
        executor: runs the model; its group is the one whose ranks may run out.
    """

    def __init__(self, executor: DDPExecutor) -> None:
        self.executor, self.group = executor, executor.group

    def announce(self, *, synchronised: bool, compiles: bool, divisor: int | None) -> None:
        """Says on a rank with a batch what the forward that follows will send.

        Args:
            synchronised: its backward sends gradients.
            compiles: it is the first one, so that the ranks agree on a plan.
            divisor: what sums of gradients are divided by; None is the world size.
        """
        *_, source = self._exchange(synchronised, compiles, divisor or 0, self.group.rank)
        self.executor.divisor, self.executor.buffer_source = divisor, source

    def accompany(self) -> None:
        """Takes part in one step of the others on a rank without a batch."""
        synchronised, compiles, divisor, source = self._exchange(0, 0, 0, _ABSENT)
        if compiles:
            self.executor.follow_others()
        self.executor.divisor, self.executor.buffer_source = divisor or None, source
        if synchronised:
            self.executor.shadow()

    def finish(self, *, last: bool, buffers: bool) -> int:
        """Ends uneven inputs on all ranks: they take over the model of the rank that trained longest.

        Args:
            last: this rank was among the last ones with a batch.
            buffers: take over its buffers as well.

        Returns:
            The rank whose model it is.
        """
        *_, source = self._exchange(0, 0, 0, self.group.rank if last else _ABSENT)
        self.executor.divisor, self.executor.buffer_source = None, 0
        copy_from_rank(self.group, self.executor.shared_state(buffers=buffers), rank=source)
        return source

    def _exchange(self, synchronised: int, compiles: int, divisor: int, rank: int) -> list[int]:
        """The greatest of what all ranks say."""
        message = torch.tensor([synchronised, compiles, divisor, rank], device=message_device(self.group))
        dist.all_reduce(message, dist.ReduceOp.MAX, group=self.group.handle)
        said: list[int] = message.tolist()
        return said
