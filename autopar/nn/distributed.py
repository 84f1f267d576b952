"""A drop-in for ``torch.nn.parallel.DistributedDataParallel`` that runs on autopar's ``ddp``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from autopar import compat
from autopar.attach import Attachment
from autopar.compilation import require_trainable
from autopar.strategies.ddp import DDP

__all__ = ["DistributedDataParallel"]

_NOT_HONOURED = (
    "delay_all_reduce_named_params",
    "param_to_hook_all_reduce",
    "mixed_precision",
    "bucket_cap_mb_list",
)


class DistributedDataParallel(nn.Module):
    """Wraps a module so that its gradients are averaged over the ranks in backward.

    Takes torch's arguments. The wrapped module stays as it is, under ``.module``; state dicts have
    the ``module.`` prefix. The forward is captured at the first call. Not needed here, and accepted
    without effect: ``find_unused_parameters`` and ``static_graph`` (what is used is known from the
    graph), ``gradient_as_bucket_view`` (gradients always are views), ``check_reduction``,
    ``batched_grad_copy`` and ``skip_all_reduce_unused_params``.

    Args:
        module: the module to train; its parameters are on one device.
        device_ids: None, or the one CUDA device that inputs are moved to.
        output_device: accepted where ``device_ids`` is; outputs stay where they are computed.
        dim: accepted as torch does; a rank's batch is never split.
        broadcast_buffers: keep buffers those of rank 0.
        init_sync: compare the modules and copy rank 0's values at construction.
        process_group: the ranks; None is the default group.
        bucket_cap_mb: size at which a bucket is closed, in MiB; None is 25 with a first bucket of 1.
        device_mesh: a one-dimensional mesh in place of ``process_group``.
        forward_sync_buffers: as ``broadcast_buffers``; None follows it.

    Raises:
        ValueError: no process group, a negative cap, or ``device_ids`` that do not fit the module.
        RuntimeError: both ``process_group`` and ``device_mesh``.
        ModelError: no trainable parameter, or lazy parameters.
        RankMismatchError: the ranks hold different modules; raised alike on all of them.
        NotImplementedError: an argument whose effect would be missing.
    """

    def __init__(
        self,
        module: nn.Module,
        device_ids: Sequence[int | torch.device] | None = None,
        output_device: int | torch.device | None = None,
        dim: int = 0,
        broadcast_buffers: bool = True,
        init_sync: bool = True,
        process_group: dist.ProcessGroup | None = None,
        bucket_cap_mb: float | None = None,
        find_unused_parameters: bool = False,
        check_reduction: bool = False,
        gradient_as_bucket_view: bool = False,
        static_graph: bool = False,
        delay_all_reduce_named_params: Any = None,
        param_to_hook_all_reduce: Any = None,
        mixed_precision: Any = None,
        device_mesh: DeviceMesh | None = None,
        skip_all_reduce_unused_params: bool = False,
        bucket_cap_mb_list: Sequence[float] | None = None,
        batched_grad_copy: bool = False,
        forward_sync_buffers: bool | None = None,
    ) -> None:
        super().__init__()
        given = locals()
        for name in _NOT_HONOURED:
            if given[name] is not None:
                raise NotImplementedError(f"autopar's DistributedDataParallel does not take {name} yet.")
        self.process_group = _group(process_group, device_mesh)
        if bucket_cap_mb is not None and bucket_cap_mb < 0:
            raise ValueError(f"bucket_cap_mb is {bucket_cap_mb}; it must be 0 or more.")
        require_trainable(module)
        self.device_ids = _device_ids(module, device_ids, output_device)
        self.module = module
        self.dim, self.output_device = dim, output_device
        self.broadcast_buffers, self.init_sync = broadcast_buffers, init_sync
        self.find_unused_parameters, self.static_graph = find_unused_parameters, static_graph
        self.gradient_as_bucket_view = gradient_as_bucket_view
        strategy = DDP(
            bucket_cap_mb=25.0 if bucket_cap_mb is None else bucket_cap_mb,
            first_bucket_mb=1.0 if bucket_cap_mb is None else bucket_cap_mb,
            broadcast_buffers=broadcast_buffers if forward_sync_buffers is None else forward_sync_buffers,
            process_group=process_group if device_mesh is None else self.process_group,
            init_sync=init_sync,
        )
        self._attachment = Attachment(strategy)
        self._attachment.model = module
        self._attachment.start()

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """Runs the wrapped module on this rank's inputs."""
        if self.device_ids is not None:
            inputs, kwargs = _moved((inputs, kwargs), torch.device("cuda", self.device_ids[0]))
        if not compat.has_module_hooks(self.module):
            return self._attachment.run(inputs, kwargs)
        # The module's own hooks run around its forward; while they do, its forward is ours.
        own = vars(self.module)

        def once(*inputs: Any, **kwargs: Any) -> Any:
            own.pop("forward", None)
            return self._attachment.run(inputs, kwargs)

        own["forward"] = once
        try:
            return self.module(*inputs, **kwargs)
        finally:
            own.pop("forward", None)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Within this block backward only adds to the local ``.grad``; the forward must be inside."""
        with self._attachment.accumulating():
            yield

    def register_comm_hook(self, state: object, hook: Callable[..., Any]) -> None:
        """Communication hooks are not there yet."""
        raise NotImplementedError("autopar's DistributedDataParallel takes no communication hooks yet.")

    def join(self, *args: Any, **kwargs: Any) -> Any:
        """Joining of uneven inputs is not there yet."""
        raise NotImplementedError("autopar's DistributedDataParallel has no join() yet: give all ranks equal batches.")

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> DistributedDataParallel:
        super()._apply(fn, recurse)
        self._attachment.invalidate()
        return self

    def __getstate__(self) -> dict[str, Any]:
        if self.process_group is not dist.group.WORLD:
            raise RuntimeError(
                "A DistributedDataParallel with a process group of its own cannot be pickled or copied: "
                "the group exists in this run only. Pickle .module instead."
            )
        return {name: value for name, value in vars(self).items() if name != "process_group"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.process_group = _group(None, None)
        self._attachment.model = self.module


def _group(process_group: dist.ProcessGroup | None, mesh: DeviceMesh | None) -> dist.ProcessGroup:
    if process_group is not None and mesh is not None:
        raise RuntimeError("Cannot specify both process_group and device_mesh arguments.")
    if mesh is not None:
        if mesh.ndim != 1:
            raise RuntimeError(f"Only 1D device mesh is supported, but got {mesh}.")
        return mesh.get_group(mesh_dim=0)
    if process_group is not None:
        return process_group
    if not dist.is_initialized():
        raise ValueError("Default process group has not been initialized, please make sure to call init_process_group.")
    assert dist.group.WORLD is not None
    return dist.group.WORLD


def _device_ids(
    module: nn.Module, device_ids: Sequence[int | torch.device] | None, output_device: Any
) -> list[int] | None:
    if not device_ids and output_device is None:
        return None
    kinds = {parameter.device.type for parameter in module.parameters()}
    if kinds != {"cuda"}:
        raise ValueError(
            "device_ids and output_device only work with modules on one CUDA device, but got "
            f"device_ids {device_ids}, output_device {output_device} and parameters on {sorted(kinds)}. "
            "Leave both out for a module on the CPU."
        )
    if device_ids is None:
        return None
    if len(device_ids) != 1:
        raise ValueError("device_ids can only be None or contain a single element.")
    index = torch.device("cuda", device_ids[0]).index if isinstance(device_ids[0], int) else device_ids[0].index
    if index is None:
        warnings.warn("device_ids has a device without an index; inputs stay where they are.", stacklevel=3)
        return None
    return [index]


def _moved(tree: Any, device: torch.device) -> Any:
    leaves, spec = compat.tree_flatten(tree)
    moved = [leaf.to(device, non_blocking=True) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    return compat.tree_unflatten(moved, spec)
