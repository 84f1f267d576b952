"""Checks communication hooks as torch does, and has torch's built-in ones."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from autopar import compat

__all__ = ["builtin_hook", "check_hook"]


# As they are, or as text under `from __future__ import annotations`.
_RESULTS = (inspect.Signature.empty, torch.futures.Future[torch.Tensor], "torch.futures.Future[torch.Tensor]")


def check_hook(hook: Any) -> None:
    """Refuses what cannot be a communication hook.

    Raises:
        TypeError: it cannot be called.
        ValueError: its annotations say that it is for something else.
    """
    if not callable(hook):
        raise TypeError("Communication hook must be callable.")
    signature = inspect.signature(hook)
    bucket, result = signature.parameters.get("bucket"), signature.return_annotation
    if bucket is None:
        raise ValueError("Communication hook: it must take (state, bucket).")
    if bucket.annotation not in (inspect.Parameter.empty, compat.GradBucket, "dist.GradBucket"):
        raise ValueError("Communication hook: bucket annotation should be dist.GradBucket.")
    if result not in _RESULTS:
        raise ValueError("Communication hook: return annotation should be torch.futures.Future[torch.Tensor].")


def builtin_hook(kind: Any) -> Callable[[Any, Any], Any]:
    """The hook in Python that does what one of torch's built-in ones does in C++."""
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks  # imports torch's optimizers: a second

    hooks: dict[str, Callable[[Any, Any], Any]] = {
        "ALLREDUCE": default_hooks.allreduce_hook,
        "FP16_COMPRESS": default_hooks.fp16_compress_hook,
    }
    return hooks[kind.name]
