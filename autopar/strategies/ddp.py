"""``ddp``: every rank holds the whole model; gradients are averaged in buckets during backward."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from autopar.errors import OptionError
from autopar.runtime.executor import Executor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["BACKENDS", "DDP"]

BACKENDS = ("auto", "shm", "torch")


@dataclass(frozen=True, slots=True, kw_only=True)
class DDP:
    """Distributed data parallelism, one process a replica (Li et al., VLDB 2020).

    Attributes:
        bucket_cap_mb: size at which a bucket is closed, in MiB; 0 gives every parameter its own.
        first_bucket_mb: the same for the first bucket, which should start early.
        broadcast_buffers: keep buffers that forward writes (batch norm statistics) those of rank 0.
        timeout: seconds that a rank waits for the others, for a process group made here.
        process_group: the ranks to train with; None is the default group.
        init_sync: compare the models at the start and copy rank 0's values to the others.
        backend: what carries the gradients: ``"shm"`` (shared memory, for ranks on one host that train
            on the CPU), ``"torch"`` (the process group's own: gloo, nccl), or ``"auto"``: the first
            that can be had. The variable ``AUTOPAR_BACKEND`` decides where this says ``"auto"``.
    """

    bucket_cap_mb: float = 25.0
    first_bucket_mb: float = 1.0
    broadcast_buffers: bool = True
    timeout: float = 300.0
    process_group: ProcessGroup | None = None
    init_sync: bool = True
    backend: str = "auto"
    name: ClassVar[str] = "ddp"

    def __post_init__(self) -> None:
        for option in ("bucket_cap_mb", "first_bucket_mb", "timeout"):
            value = getattr(self, option)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise OptionError(f"The option {option} is {value!r}.", mend="It must be a number, 0 or more.")
        if self.backend not in BACKENDS:
            raise OptionError(f"The option backend is {self.backend!r}.", mend=f"Known: {', '.join(BACKENDS)}.")

    def pipeline(self) -> str:
        """Inline, order, bucket, synchronise, lift."""
        bucket = f"bucket{{cap_mb={self.bucket_cap_mb:g},first_mb={self.first_bucket_mb:g}}}"
        return f"inline-modules,shapes,backward-order,{bucket},ddp-sync,lift-parameters"

    def options(self) -> Mapping[str, Any]:
        """What must be equal on all ranks."""
        return {
            "bucket_cap_mb": self.bucket_cap_mb,
            "first_bucket_mb": self.first_bucket_mb,
            "broadcast_buffers": self.broadcast_buffers,
            "backend": self.backend,
        }

    def start(self, model: nn.Module) -> Executor:
        """Joins the process group, checks that all ranks start alike, and copies rank 0's values."""
        from autopar.runtime.ddp import DDPExecutor

        return DDPExecutor(
            model,
            process_group=self.process_group,
            timeout=self.timeout,
            broadcast_buffers=self.broadcast_buffers,
            options=self.options(),
            init_sync=self.init_sync,
            backend=self.backend,
        )
