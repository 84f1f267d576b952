"""Where a model lives, and where a rank should put it."""

from __future__ import annotations

import os

import torch
from torch import nn

from autopar.errors import LaunchError, ModelError

__all__ = ["device_of", "pick_device"]


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's parameters.

    Raises:
        ModelError: they are on several devices, on the meta device, or lazy.
    """
    lazy = [name for name, parameter in model.named_parameters() if nn.parameter.is_lazy(parameter)]
    if lazy:
        raise ModelError(
            f"The model has lazy parameters without a shape: {', '.join(lazy[:3])}.",
            why="Ranks cannot be compared, nor buckets planned, without every size.",
            mend="Run the model once on a sample input first, or give the sizes in the constructor.",
            code="AP123",
        )
    devices = {parameter.device for parameter in model.parameters()}
    if not devices:
        return torch.device("cpu")
    if torch.device("meta") in devices:
        raise ModelError(
            "The model has parameters on the meta device, which hold no values.",
            mend="Materialise it first: model.to_empty(device=...) and initialise, or build it on a real device.",
        )
    if len(devices) > 1:
        examples = {str(p.device): name for name, p in reversed(list(model.named_parameters()))}
        places = ", ".join(f"{name!r} on {device}" for device, name in sorted(examples.items()))
        raise ModelError(
            f"The model's parameters are on several devices: {places}.",
            why="A replica of ddp or data_parallel lives on one device.",
            mend="Move the model to one device first, with model.to(...).",
        )
    return devices.pop()


def pick_device() -> torch.device:
    """This rank's device: CUDA device ``LOCAL_RANK`` where there is CUDA, else the CPU.

    Raises:
        LaunchError: more local ranks than CUDA devices.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    local_rank, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local_rank >= count:
        raise LaunchError(
            f"LOCAL_RANK is {local_rank} but this host has {count} CUDA devices.",
            mend=f"Start at most {count} processes on this host, or use --device cpu.",
        )
    return torch.device("cuda", local_rank)
