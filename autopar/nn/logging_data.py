"""The dictionary of ``DistributedDataParallel._get_ddp_logging_data``: what autopar knows of torch's keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from torch import nn

if TYPE_CHECKING:
    from autopar.nn.distributed import DistributedDataParallel

__all__ = ["logging_data"]

_MIB = 1024 * 1024
_CTYPES = {"float32": "float", "float64": "double", "float16": "c10::Half", "bfloat16": "c10::BFloat16"}


def logging_data(ddp: DistributedDataParallel) -> dict[str, Any]:
    """What is known now; times of steps are not measured, and their keys are absent."""
    strategy, plan = ddp.strategy, ddp.plan
    trainable = [p for p in ddp.module.parameters() if p.requires_grad]
    data: dict[str, Any] = {
        "world_size": dist.get_world_size(ddp.process_group),
        "rank": dist.get_rank(ddp.process_group),
        "module_name": type(ddp.module).__name__,
        "backend_name": str(dist.get_backend(ddp.process_group)),
        "device_ids": "" if ddp.device_ids is None else " ".join(map(str, ddp.device_ids)),
        "output_device": -1 if ddp.output_device is None else ddp.output_device,
        "broadcast_buffers": int(ddp.forward_sync_buffers),
        "find_unused_parameters": int(ddp.find_unused_parameters),
        "gradient_as_bucket_view": int(ddp.gradient_as_bucket_view),
        "static_graph": int(ddp.static_graph),
        "bucket_cap_bytes": int((strategy.bucket_cap_mb or 0) * _MIB),
        "num_parameter_tensors": len(trainable),
        "total_parameter_size_bytes": sum(p.nbytes for p in trainable),
        "dtypes": ", ".join(sorted({_ctype(str(p.dtype)) for p in trainable})),
        "iteration": ddp.iteration,
        "unused_parameter_size": ddp.unused_bytes,
        "has_sync_bn": int(any(isinstance(module, nn.SyncBatchNorm) for module in ddp.module.modules())),
        "has_error": int(bool(ddp.error)),
        "error": ddp.error,
    }
    if strategy.comm_hook is not None:
        data["comm_hook"] = strategy.comm_hook.name
    if ddp.joined:
        data["join_uneven_inputs"] = 1
    if plan is not None:
        sizes = ", ".join(str(bucket.nbytes) for bucket in plan.buckets)
        data |= {
            "bucket_sizes": sizes,
            "rebuilt_bucket_sizes": sizes,
            "num_buckets_reduced": len(plan.buckets),
            # Buckets follow the order of backward from the first step on; torch's never do when it
            # looks for unused parameters.
            "has_rebuilt_buckets": int(ddp.static_graph or not ddp.find_unused_parameters),
        }
    return data


def _ctype(dtype: str) -> str:
    name = dtype.removeprefix("torch.")
    return _CTYPES.get(name, name)
