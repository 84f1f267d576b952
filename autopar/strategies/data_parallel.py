"""``data_parallel``: one process, n replicas of the model, each with its part of the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from autopar.errors import OptionError
from autopar.runtime.executor import Executor

__all__ = ["DataParallel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataParallel:
    """Splits each batch over replicas in one process; gradients sum up in the user's parameters.

    The result is that of the plain module on the whole batch, with two exceptions. Batch norms in
    train mode see their replica's part only, and replica 0's running statistics are kept, as with
    ``torch.nn.DataParallel`` on GPUs; a warning says so. Dropout draws other random numbers for the
    parts than for the whole. Unlike torch's it also splits on the CPU. (The drop-in
    ``autopar.nn.DataParallel`` runs the plain module there while a batch norm trains.)

    How outputs are put together is found out on the sample call. What it cannot show is a mean over
    as many elements as the values decide, such as a loss inside the model that ignores padding
    (``ignore_index``), on a sample without padding: compute such a loss outside, from the outputs.

    Attributes:
        replicas: how many; None takes the number of ``devices``, and without devices every CUDA
            device when the model is on CUDA, else 2 on the CPU. (The number decides what a batch
            norm sees, so it does not follow the number of cores.)
        devices: one device for each replica (a string, an index of a CUDA device, or a
            ``torch.device``); the model's parameters live on the first. None leaves every replica
            on the model's own device unless several CUDA devices are there.
        dim: dim of inputs and outputs that holds the batch.
        gather: ``"exact"`` puts each output together as the whole batch would have given it (a
            mean loss is the mean weighted by part size) and refuses models whose outputs mix
            samples; ``"torch"`` concatenates everything, and scalars become a vector.

    Raises:
        OptionError: a value is out of range, or ``replicas`` and ``devices`` disagree.

    Example:
        >>> DataParallel(replicas=4).pipeline()
        'inline-modules,shapes,replicate{replicas=4},lift-parameters'
    """

    replicas: int | None = None
    devices: Sequence[str | int | torch.device] | None = None
    dim: int = 0
    gather: Literal["exact", "torch"] = "exact"
    name: ClassVar[str] = "data_parallel"

    def __post_init__(self) -> None:
        if self.devices is not None:
            devices = tuple(_device_name(device) for device in self.devices)
            object.__setattr__(self, "devices", devices)
            if not devices or self.replicas not in (None, len(devices)):
                raise OptionError(
                    f"There are {len(devices)} devices for {self.replicas or 'the'} replicas.",
                    mend="Give one device for each replica, or leave the option replicas out.",
                )
        if self.replicas is not None and self.replicas < 1:
            raise OptionError(f"The option replicas is {self.replicas}.", mend="It must be 1 or more.")
        if self.dim < 0:
            raise OptionError(f"The option dim is {self.dim}.", mend="It must be 0 or more.")
        if self.gather not in ("exact", "torch"):
            raise OptionError(f"The option gather is {self.gather!r}.", mend="It must be 'exact' or 'torch'.")

    def pipeline(self) -> str:
        """Inline, replicate, lift; options that have their default are left out."""
        options = {
            "replicas": self.replicas if self.devices is None else None,
            "devices": None if self.devices is None else f"'{','.join(map(str, self.devices))}'",
            "dim": self.dim or None,
            "gather": None if self.gather == "exact" else self.gather,
        }
        given = ",".join(f"{key}={value}" for key, value in options.items() if value is not None)
        replicate = f"replicate{{{given}}}" if given else "replicate"
        return f"inline-modules,shapes,{replicate},lift-parameters"

    def options(self) -> Mapping[str, Any]:
        """What belongs in a plan; the pass ``replicate`` fills in what is still open here."""
        return {"replicas": self.replicas, "dim": self.dim, "gather": self.gather}

    def start(self, model: nn.Module) -> Executor:
        """Needs no process group: one process holds all replicas."""
        from autopar.runtime.data_parallel import DataParallelExecutor

        devices = None if self.devices is None else [str(device) for device in self.devices]
        return DataParallelExecutor(model, replicas=self.replicas, devices=devices)


def _device_name(device: str | int | torch.device) -> str:
    try:
        found = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    except RuntimeError as error:
        raise OptionError(
            f"{device!r} is no device: {str(error).splitlines()[0]}", mend="Give names such as cpu or cuda:0."
        ) from None
    return "cuda:0" if str(found) == "cuda" else str(found)
