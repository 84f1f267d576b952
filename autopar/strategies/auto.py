"""``"auto"``: picks a strategy by what is there, and says why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from autopar.runtime.group import launched_world_size
from autopar.strategies.base import Strategy, resolve

__all__ = ["pick_strategy"]


def pick_strategy(model: nn.Module | None = None, options: Mapping[str, Any] | None = None) -> tuple[Strategy, str]:
    """The strategy for this launch, and the reason in words.

    Several launched ranks give ``ddp``. One process with a model on CUDA and several CUDA devices
    gives ``data_parallel`` over them. Anything else gives ``ddp`` at world size 1, which is the
    model itself, captured.

    Raises:
        LaunchError: the launch environment is broken.
    """
    options = options or {}
    ranks = launched_world_size()
    if ranks is not None and ranks > 1:
        return resolve("ddp", options), f"{ranks} ranks were launched"
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    on_cuda = model is None or any(parameter.is_cuda for parameter in model.parameters())
    if devices > 1 and on_cuda:
        return resolve("data_parallel", options), f"one process, {devices} CUDA devices"
    return resolve("ddp", options), "one process, one device: nothing to communicate"
