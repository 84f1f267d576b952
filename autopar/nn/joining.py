"""Uneven inputs with torch's join context (``torch.distributed.algorithms.join``)."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.algorithms.join import Join, Joinable, JoinHook

from autopar.attach import Attachment
from autopar.runtime.agreement import message_device
from autopar.runtime.ddp import DDPExecutor
from autopar.runtime.uneven import UnevenInputs

__all__ = ["JoinedModel", "JoinsUnevenInputs"]


class JoinsUnevenInputs(Joinable):
    """The part of ``DistributedDataParallel`` that a join context talks to.

    Attributes:
        joined: whether there has been a join context.
    """

    device: torch.device
    process_group: dist.ProcessGroup
    forward_sync_buffers: bool
    joined: bool
    _attachment: Attachment

    def __init__(self) -> None:
        super().__init__()
        self.joined = False
        self._divide_by_initial_world_size = True
        self._authoritative_rank = 0

    def executor(self) -> DDPExecutor:
        """What runs the module; started here where it has not been."""
        started = self._attachment.start()
        assert isinstance(started, DDPExecutor), "the strategy is ddp"
        return started

    def join(
        self, divide_by_initial_world_size: bool = True, enable: bool = True, throw_on_early_termination: bool = False
    ) -> Join:
        """Within this context ranks may have different numbers of batches.

        Args:
            divide_by_initial_world_size: divide sums of gradients by the world size for good, rather
                than by the number of ranks that still have batches.
            enable: False turns the context off.
            throw_on_early_termination: raise on all ranks as soon as one has no batch.

        Raises:
            OptionError: batch norms take their statistics over all ranks, and ranks are to go on without others.
        """
        if enable and not throw_on_early_termination:
            self.executor().norms.refuse_absence()
        return Join(
            [self],
            enable,
            throw_on_early_termination,
            divide_by_initial_world_size=divide_by_initial_world_size,
        )

    def join_hook(self, **kwargs: Any) -> JoinHook:
        """What keeps this rank in step once it has no batch."""
        self._divide_by_initial_world_size = kwargs.get("divide_by_initial_world_size", True)
        self.joined = True
        return _Companion(self)

    @property
    def join_device(self) -> torch.device:
        """Where the messages of a join context are."""
        return self.device

    @property
    def join_process_group(self) -> dist.ProcessGroup:
        """The ranks of a join context."""
        return self.process_group

    def announce(self) -> None:
        """Tells ranks without a batch what the forward that begins will send; nothing outside of a join context."""
        if not self._join_config.enable:
            return
        executor, divisor = self.executor(), None
        work = Join.notify_join_context(self)
        if work is not None and not self._divide_by_initial_world_size:
            (present,) = work.get_future().wait()
            divisor = int(present.item())
        training = torch.is_grad_enabled()
        UnevenInputs(executor).announce(
            synchronised=executor.sends_next and training,
            compiles=training and self._attachment.compilation is None,
            divisor=divisor,
        )

    def end_join(self, *, last: bool) -> None:
        """Takes over the model of the rank that trained longest, when no rank has a batch any more."""
        uneven = UnevenInputs(self.executor())
        self._authoritative_rank = uneven.finish(last=last, buffers=self.forward_sync_buffers)


class JoinedModel(JoinsUnevenInputs):
    """Stands for a model that ``autopar.parallelize`` made parallel in a join context.

    Args:
        attachment: what runs the model.
    """

    def __init__(self, attachment: Attachment) -> None:
        super().__init__()
        self._attachment = attachment
        executor = self.executor()
        assert executor.group.handle is not None, "there are several ranks"
        self.process_group = executor.group.handle
        self.device = message_device(executor.group)
        self.forward_sync_buffers = executor.broadcast_buffers


class _Companion(JoinHook):
    def __init__(self, ddp: JoinsUnevenInputs) -> None:
        self.ddp = ddp

    def main_hook(self) -> None:
        UnevenInputs(self.ddp.executor()).accompany()

    def post_hook(self, is_last_joiner: bool) -> None:
        self.ddp.end_join(last=is_last_joiner)
