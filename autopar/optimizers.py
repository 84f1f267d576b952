"""Optimizers whose state the ranks of a parallel model divide among themselves."""

from __future__ import annotations

from typing import TypeVar

from torch import nn
from torch.optim import Optimizer

from autopar.attach.ranks import with_ranks
from autopar.errors import UsageError
from autopar.runtime.collectives import Collectives
from autopar.runtime.ddp import DDPExecutor
from autopar.runtime.sharding import ShardedOptimizer

__all__ = ["shard_optimizer"]

OptimizerT = TypeVar("OptimizerT", bound=Optimizer)


def shard_optimizer(model: nn.Module, optimizer: OptimizerT) -> OptimizerT:
    """Lets each rank keep the optimizer's state of an equal share of the parameters alone, in place.

    ``step()`` updates that share and collects the others'; the parameters are then those of the unsharded optimizer,
    bit for bit but for fused kernels, which round a few elements differently. The memory of the parameters is laid out
    anew, side by side; parameters stay the same objects. ``state_dict()`` is that of the unsharded optimizer, so that
    it can be loaded with any number of ranks; it asks the other ranks for their shares, so all must call it.
    Called on all ranks, before or after the optimizer's first step.

    Args:
        model: parallel with ``ddp`` or ``zero1``.
        optimizer: of the model's parameters.

    Returns:
        The same optimizer.

    Raises:
        UsageError: the model has no ranks, the optimizer is sharded already or another model's, or it does not update
            each element by itself, as Adafactor, LBFGS and Muon.
        RankMismatchError: the ranks' optimizers differ; raised alike on all of them.

    Example:
        >>> import torch, autopar
        >>> model = autopar.parallelize(nn.Linear(10, 1), "zero1")
        >>> optimizer = autopar.shard_optimizer(model, torch.optim.AdamW(model.parameters()))
    """
    attachment, executor = with_ranks(model, "share an optimizer", strategy="zero1")
    if any(one.optimizer is optimizer for one in attachment.sharded):
        raise UsageError(f"This {type(optimizer).__name__} is sharded already.", mend="Leave the second call out.")

    def connect() -> Collectives:
        """Asked at each step, because a model that was moved has connections anew."""
        current = attachment.start()
        assert isinstance(current, DDPExecutor)
        return current.collectives()

    sharded = ShardedOptimizer(optimizer, model, executor.group, connect, own=executor.ignore)
    attachment.sharded.append(sharded)
    return optimizer
