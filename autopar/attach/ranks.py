"""The runtime of a model whose ranks do something together."""

from __future__ import annotations

from torch import nn

from autopar.attach.attachment import Attachment
from autopar.attach.module import attachment_of
from autopar.errors import UsageError
from autopar.runtime.ddp import DDPExecutor

__all__ = ["with_ranks"]


def with_ranks(model: nn.Module, purpose: str, *, strategy: str) -> tuple[Attachment, DDPExecutor]:
    """What is attached to a model that trains on ranks, and what executes it.

    Args:
        model: the user's model.
        purpose: what the ranks are to do, for the message.
        strategy: one that has ranks, for the message.

    Raises:
        UsageError: the model is not parallel, or by a strategy without ranks.
    """
    attachment = attachment_of(model)
    executor = None if attachment is None else attachment.start()
    if attachment is None or not isinstance(executor, DDPExecutor):
        raise UsageError(
            f"This {type(model).__name__} has no ranks that could {purpose}.",
            mend=f'Call autopar.parallelize(model, "{strategy}") first.',
        )
    return attachment, executor
