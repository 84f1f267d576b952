"""Communication hooks: a function of the user's in the place of a bucket's all-reduce.

The contract is that of ``DistributedDataParallel.register_comm_hook``, so that torch's own hooks
(``torch.distributed.algorithms.ddp_comm_hooks``) run unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from autopar.errors import RuntimeStateError
from autopar.runtime.bucket_kinds import AnyBucket
from autopar.runtime.collectives import Work

__all__ = ["CommHook", "GradBucket"]


class GradBucket:
    """What a hook sees of a bucket, with the methods of ``torch.distributed.GradBucket``.

    Args:
        bucket: loaded with this rank's gradients, not yet divided.
        is_last: whether it is the last one of this backward.
    """

    def __init__(self, bucket: AnyBucket, *, is_last: bool) -> None:
        self._bucket, self._is_last = bucket, is_last
        self._buffer = bucket.messages[0]

    def index(self) -> int:
        """Its place in the order in which buckets are sent."""
        return self._bucket.spec.index

    def buffer(self) -> torch.Tensor:
        """All gradients in one tensor of shape (elements,)."""
        return self._buffer

    def gradients(self) -> list[torch.Tensor]:
        """Views into the buffer, one in the shape of each parameter."""
        views = self._bucket.views()
        if self._buffer is self._bucket.messages[0]:
            return list(views)
        parts = self._buffer.split([view.numel() for view in views])
        return [part.as_strided(view.shape, view.stride()) for part, view in zip(parts, views, strict=True)]

    def parameters(self) -> list[torch.Tensor]:
        """The parameters, in the order of their gradients."""
        return list(self._bucket.parameters)

    def is_last(self) -> bool:
        """Whether no bucket of this backward comes after it."""
        return self._is_last

    def set_buffer(self, buffer: torch.Tensor) -> None:
        """Puts another tensor in the place of the buffer, for the hook's own use."""
        self._buffer = buffer


@dataclass(frozen=True, slots=True)
class CommHook:
    """A hook with its state.

    Attributes:
        state: given to the hook at each call.
        hook: called as ``hook(state, bucket)`` once a bucket is complete; gives a future of a tensor
            like ``bucket.buffer()`` that holds the gradients to train with.
        label: its name in logs, where that is not its own.
    """

    state: Any
    hook: Callable[[Any, Any], Any]
    label: str = ""

    @property
    def name(self) -> str:
        """As it is written in logs."""
        return self.label or getattr(self.hook, "__qualname__", type(self.hook).__name__)

    def send(self, bucket: AnyBucket, *, is_last: bool) -> Work:
        """Starts the hook on a loaded bucket; ``wait`` on the result stores what it gives."""
        return _HookWork(self.hook(self.state, GradBucket(bucket, is_last=is_last)), bucket, self.name)


class _HookWork:
    __slots__ = ("_bucket", "_future", "_name")

    def __init__(self, future: Any, bucket: AnyBucket, name: str) -> None:
        self._future, self._bucket, self._name = future, bucket, name

    def wait(self) -> None:
        result = self._future.wait()
        result = result[0] if isinstance(result, (list, tuple)) else result
        message = self._bucket.messages[0]
        if result.layout != torch.strided:
            self._bucket.messages = [result]
        elif result.numel() != message.numel():
            raise RuntimeStateError(
                f"The communication hook {self._name} gave {result.numel()} elements for bucket "
                f"{self._bucket.spec.index}, which has {message.numel()}.",
                mend="Return a future of one tensor of the size of bucket.buffer().",
            )
        elif result.data_ptr() != message.data_ptr() or result.dtype != message.dtype:
            message.copy_(result.view(-1))
