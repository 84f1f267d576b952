"""``ddp``: every rank holds the whole model; gradients are averaged in buckets during backward."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from autopar.errors import OptionError
from autopar.runtime.executor import Executor
from autopar.runtime.weighing import Weight, measure_of, name_of

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from autopar.runtime.comm_hook import CommHook

__all__ = ["BACKENDS", "DDP"]

BACKENDS = ("auto", "shm", "torch")


@dataclass(frozen=True, slots=True, kw_only=True)
class DDP:
    """Distributed data parallelism, one process a replica (Li et al., VLDB 2020).

    Attributes:
        bucket_cap_mb: size at which a bucket is closed, in MiB; 0 gives every parameter its own. None leaves
            the sizes to a cost model: what messages cost is measured at the start, and buckets, of 25 MiB at
            most, are formed such that the step is predicted to end first.
        first_bucket_mb: the same for the first bucket, which should start early; for a given ``bucket_cap_mb``.
        broadcast_buffers: keep buffers that forward writes (batch norm statistics) those of rank 0.
        timeout: seconds that a rank waits for the others, for a process group made here.
        process_group: the ranks to train with; None is the default group.
        init_sync: compare the models at the start and copy rank 0's values to the others.
        init_sync_buffers: compare and copy the buffers, too.
        backend: what carries the gradients: ``"shm"`` (shared memory, for ranks on one host that train
            on the CPU), ``"torch"`` (the process group's own: gloo, nccl), or ``"auto"``: the first
            that can be had. The variable ``AUTOPAR_BACKEND`` decides where this says ``"auto"``.
        bucket_caps_mb: a size for each bucket, in MiB, the last one for all further ones; in the place
            of ``bucket_cap_mb`` and ``first_bucket_mb``.
        comm_hook: reduces each bucket in the place of an all-reduce; torch's hooks run as they are.
        ignore: names of parameters and buffers that each rank keeps to itself.
        dynamic: the forward may use other parameters at another call or on another rank, so that those
            which the first call leaves out get a place in a bucket, too.
        all_buffers: keep those buffers equal, too, that forward only reads but the script may change.
        compile: run under ``torch.compile``, with the all-reduces inside the graph; a mapping holds
            keyword arguments for it, such as ``{"mode": "max-autotune"}``.
        accumulate: how many backwards make one optimizer step. Only the last of them communicates, and the
            gradients are then divided by their number, too: the script does not divide its loss.
        compression: the pass that compresses the buckets, as in a pipeline: ``"fp16"``, ``"bf16"``,
            ``"powersgd{rank=4}"``, ``"topk{ratio=0.01}"``.
        sync_batch_norm: take the statistics of all batch norms over the batches of all ranks. Modules of
            ``nn.SyncBatchNorm`` do so in any case.
        reduce_dtype: sum gradients in that dtype, such as ``torch.float32`` for bfloat16 parameters.
        weight: what a rank's gradients count in the mean, where ranks hold different numbers of samples:
            ``"samples"`` (dim 0 of the call's first tensor), ``"tokens"`` (labels that are not -100; else the
            sum of ``attention_mask``; else the elements of the first integer tensor), a function of the call's
            arguments, or its name as ``"module:function"``. The loss is the mean over the rank's own samples;
            the gradient is then that of the mean over the samples of all ranks, and of all backwards since the
            last optimizer step. None lets every rank count alike.
    """

    bucket_cap_mb: float | None = None
    first_bucket_mb: float = 1.0
    broadcast_buffers: bool = True
    timeout: float = 300.0
    process_group: ProcessGroup | None = None
    init_sync: bool = True
    init_sync_buffers: bool = True
    backend: str = "auto"
    bucket_caps_mb: tuple[float, ...] = ()
    comm_hook: CommHook | None = None
    ignore: tuple[str, ...] = ()
    dynamic: bool = False
    all_buffers: bool = False
    compile: bool | Mapping[str, Any] = False
    accumulate: int = 1
    compression: str | None = None
    sync_batch_norm: bool = False
    reduce_dtype: torch.dtype | str | None = None
    weight: Weight | None = None
    name: ClassVar[str] = "ddp"

    def __post_init__(self) -> None:
        numbers = {option: getattr(self, option) for option in ("first_bucket_mb", "timeout")}
        numbers |= {} if self.bucket_cap_mb is None else {"bucket_cap_mb": self.bucket_cap_mb}
        numbers |= {f"bucket_caps_mb[{place}]": cap for place, cap in enumerate(self.bucket_caps_mb)}
        for option, value in numbers.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise OptionError(f"The option {option} is {value!r}.", mend="It must be a number, 0 or more.")
        if isinstance(self.accumulate, bool) or not isinstance(self.accumulate, int) or self.accumulate < 1:
            raise OptionError(
                f"The option accumulate is {self.accumulate!r}.",
                mend="Give the backwards of one optimizer step, 1 or more.",
            )
        if self.backend not in BACKENDS:
            raise OptionError(f"The option backend is {self.backend!r}.", mend=f"Known: {', '.join(BACKENDS)}.")

        for form in self._forms():
            self._check_form(form)
        if self.weight is not None:
            measure_of(self.weight)
            if self.comm_hook is not None:
                raise OptionError(
                    f"The options weight and comm_hook ({self.comm_hook.name}) were given together.",
                    why="A communication hook divides gradients by itself.",
                    mend="Leave one of them out.",
                )
        if not isinstance(self.compile, (bool, Mapping)):
            raise OptionError(
                f"The option compile is {self.compile!r}.", mend="Say True, or keyword arguments of torch.compile."
            )

    def _forms(self) -> list[str]:
        """The passes that let buckets travel in another form than their gradients'."""
        dtype = "" if self.reduce_dtype is None else f"reduce-dtype{{dtype={_dtype_name(self.reduce_dtype)}}}"
        return [form for form in (self.compression, dtype) if form]

    def _check_form(self, form: str) -> None:
        from autopar.runtime.compressors import method_of

        if not isinstance(form, str):
            raise OptionError(f"The option compression is {form!r}.", mend='Say, for example, "bf16".')
        method_of(form)
        if self.comm_hook is not None:
            raise OptionError(
                f"A compression ({form}) and a communication hook ({self.comm_hook.name}) were both given.",
                mend="Leave one of them out: each reduces the buckets.",
            )

    def pipeline(self) -> str:
        """Inline, order, bucket, synchronise, compress, lift."""
        bucket = "bucket"
        if self.bucket_cap_mb is not None:
            bucket += f"{{cap_mb={self.bucket_cap_mb:g},first_mb={self.first_bucket_mb:g}}}"
        norms = "sync-batch-norm," if self.sync_batch_norm else ""
        forms = "".join(f"{form}," for form in self._forms())
        return f"inline-modules,{norms}shapes,backward-order,{bucket},ddp-sync,{forms}lift-parameters"

    def options(self) -> Mapping[str, Any]:
        """What must be equal on all ranks."""
        chosen = {
            "bucket_caps_mb": list(self.bucket_caps_mb),
            "comm_hook": None if self.comm_hook is None else self.comm_hook.name,
            "ignore": list(self.ignore),
            "dynamic": self.dynamic,
            "all_buffers": self.all_buffers,
            "compile": self.compile is not False,
            "accumulate": self.accumulate if self.accumulate > 1 else None,
            "compression": self.compression,
            "sync_batch_norm": self.sync_batch_norm,
            "reduce_dtype": None if self.reduce_dtype is None else _dtype_name(self.reduce_dtype),
            "weight": name_of(self.weight),
        }
        return {
            "bucket_cap_mb": self.bucket_cap_mb,
            "first_bucket_mb": self.first_bucket_mb,
            "broadcast_buffers": self.broadcast_buffers,
            "backend": self.backend,
            **{name: value for name, value in chosen.items() if value},
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
            init_sync_buffers=self.init_sync_buffers,
            backend=self.backend,
            comm_hook=self.comm_hook,
            ignore=self.ignore,
            dynamic=self.dynamic,
            all_buffers=self.all_buffers,
            accumulate=self.accumulate,
            sync_batch_norm=self.sync_batch_norm,
            weigh=None if self.weight is None else measure_of(self.weight),
            measure=self.bucket_cap_mb is None and not self.bucket_caps_mb and self.comm_hook is None,
            compile=None if self.compile is False else dict(self.compile) if isinstance(self.compile, Mapping) else {},
        )


def _dtype_name(dtype: torch.dtype | str) -> str:
    return str(dtype).removeprefix("torch.")
