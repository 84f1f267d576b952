"""``torch.nn.DataParallel``'s signature over the strategy ``data_parallel``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from autopar import compat
from autopar.attach import Attachment
from autopar.errors import ModelError
from autopar.passes.batch_statistics import batch_statistics
from autopar.passes.preserving.replicate import CPU_REPLICAS
from autopar.strategies.data_parallel import DataParallel as Strategy

__all__ = ["DataParallel"]


class DataParallel(nn.DataParallel[Any]):
    """Splits each batch over replicas in one process, also on the CPU, where torch's own does nothing.

    The forward is captured at the first call. The module inside stays as it is, and plain when it
    is called directly; its own hooks run once, on the whole batch.

    - On the CPU the result is that of the plain module on the whole batch, since that is what
      torch's wrapper returns there. Where this cannot be kept the module runs plain, and a warning
      says so once: when its outputs mix samples, and while a batch norm in it is in train mode.
      Dropout draws other random numbers for two parts than for one whole batch.
    - On one CUDA device the module runs plain, as with torch.
    - On several CUDA devices outputs are gathered by torch's rules: everything is concatenated, and
      scalars become a vector with one element for each device. Without gradients (``no_grad``)
      the plain module runs on the first device.

    Args:
        module: the model; it may be moved to another device afterwards.
        device_ids: CUDA devices, all by default; on the CPU only their number counts (2 by default).
        output_device: where outputs go on CUDA; the first of ``device_ids`` by default.
        dim: dim of the batch.

    Example:
        >>> model = DataParallel(nn.Linear(10, 1))
        >>> model(torch.randn(32, 10)).shape, list(model.state_dict())
        (torch.Size([32, 1]), ['module.weight', 'module.bias'])
    """

    def __init__(
        self,
        module: nn.Module,
        device_ids: Sequence[int | torch.device] | None = None,
        output_device: int | torch.device | None = None,
        dim: int = 0,
    ) -> None:
        nn.Module.__init__(self)  # torch's own constructor would look for devices now
        self.module = module
        self.dim = dim
        self._wanted = None if device_ids is None else [_index(device) for device in device_ids]
        self._output = None if output_device is None else _index(output_device)
        self._attachment: Attachment | None = None
        self._plain_because = ""
        self._warned = False

    @property
    def device_ids(self) -> list[int]:  # type: ignore[override]
        """The CUDA devices in use; empty on the CPU, as with torch's wrapper."""
        if self._home().type != "cuda":
            return []
        return list(range(torch.cuda.device_count())) if self._wanted is None else self._wanted

    @property
    def output_device(self) -> int | None:  # type: ignore[override]
        """The CUDA device that outputs come to; None on the CPU."""
        devices = self.device_ids
        return (devices[0] if self._output is None else self._output) if devices else None

    @property
    def cpu_replicas(self) -> int:
        """Parts that a batch is split into on the CPU."""
        return CPU_REPLICAS if self._wanted is None else max(1, len(self._wanted))

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """The outputs for the whole batch."""
        if self._home().type == "cuda":
            return self._forward_cuda(inputs, kwargs)
        trainable = any(parameter.requires_grad for parameter in self.module.parameters())
        if not trainable or self.cpu_replicas == 1:
            return self.module(*inputs, **kwargs)
        because = self._plain_because or _whole_batch_needed(self.module)  # the mode may change at any time
        if not because:
            try:
                return self._split(Strategy(replicas=self.cpu_replicas, dim=self.dim), inputs, kwargs)
            except ModelError as error:
                because = self._plain_because = str(error)
        if not self._warned:
            self._warned = True
            warnings.warn(f"The batch is not split over replicas. {because}", stacklevel=4)  # past Module.__call__
        return self.module(*inputs, **kwargs)

    def _forward_cuda(self, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        devices = self.device_ids
        args, kwargs = _moved((inputs, kwargs), devices[0])
        if len(devices) == 1:
            return _moved(self.module(*args, **kwargs), self.output_device)
        strategy = Strategy(devices=tuple(devices), dim=self.dim, gather="torch")
        return _moved(self._split(strategy, args, kwargs), self.output_device)

    def _split(self, strategy: Strategy, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._attachment is None:
            self._attachment = Attachment(strategy)
            self._attachment.model = self.module
        attachment = self._attachment
        if not compat.has_module_hooks(self.module):
            return attachment.run(args, kwargs)
        # The module's own hooks run around its forward; while they do, its forward is ours.
        own = vars(self.module)

        def once(*args: Any, **kwargs: Any) -> Any:
            own.pop("forward", None)
            return attachment.run(args, kwargs)

        own["forward"] = once
        try:
            return self.module(*args, **kwargs)
        finally:
            own.pop("forward", None)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> DataParallel:
        super()._apply(fn, recurse)
        self._attachment = None  # the module may be elsewhere now, which decides on the strategy
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_attachment": None}

    def _home(self) -> torch.device:
        return next((tensor.device for tensor in self.module.parameters()), torch.device("cpu"))


def _whole_batch_needed(module: nn.Module) -> str:
    """Why the module must see its batch whole just now; ``""`` where it need not."""
    found = batch_statistics(module)
    if not found:
        return ""
    return f"It needs the statistics of the whole batch in {found[0]}" + (
        f" and {len(found) - 1} more." if len(found) > 1 else "."
    )


def _index(device: int | torch.device) -> int:
    if isinstance(device, int):
        return device
    return torch.device(device).index or 0


def _moved(tree: Any, device: int | None) -> Any:
    leaves, spec = compat.tree_flatten(tree)
    target = torch.device("cuda", device or 0)
    return compat.tree_unflatten([t.to(target) if isinstance(t, torch.Tensor) else t for t in leaves], spec)
