"""Chooses what carries the gradients: shared memory where all ranks share a host, else torch's group."""

from __future__ import annotations

import os
import warnings

import torch

from autopar.errors import LaunchError, OptionError
from autopar.runtime.agreement import exchange
from autopar.runtime.collectives import Collectives, TorchCollectives
from autopar.runtime.collectives import Work as AnyWork
from autopar.runtime.group import Group
from autopar.runtime.heartbeats import StoreHeartbeats
from autopar.shm import Communicator, Work, connect

__all__ = ["SharedMemoryCollectives", "start_collectives"]

_VARIABLE = "AUTOPAR_BACKEND"
_HEADROOM = 1.25  # of the gradients' bytes: buffers of modules, alignment, a bucket that is made anew


def start_collectives(group: Group, backend: str, *, device: torch.device, nbytes: int) -> Collectives:
    """The backend that all ranks agree on; called on all of them.

    Args:
        group: the ranks, more than one.
        backend: ``"auto"``, ``"shm"`` or ``"torch"``.
        device: where the gradients are.
        nbytes: of all gradients.

    Raises:
        LaunchError: shared memory was asked for and cannot be had; raised alike on all ranks.
        OptionError: the variable ``AUTOPAR_BACKEND`` is none of the backends.
    """
    if backend == "auto":
        backend = os.environ.get(_VARIABLE) or "auto"
    if backend not in ("auto", "shm", "torch"):
        raise OptionError(f"{_VARIABLE} is {backend!r}.", mend="Known: auto, shm, torch.")
    if backend == "torch" or (backend == "auto" and device.type != "cpu"):
        return TorchCollectives(group, StoreHeartbeats.of(group))
    found: Communicator | str = f"the model is on {device.type}"
    if device.type == "cpu":
        found = connect(
            group.rank,
            group.world_size,
            lambda value: exchange(group, value),
            timeout=group.timeout,
            reserve=int(nbytes * _HEADROOM),
        )
    if isinstance(found, Communicator):
        return SharedMemoryCollectives(found, TorchCollectives(group))
    if backend == "shm":
        raise LaunchError(
            f"Shared memory cannot carry the gradients: {found}.", mend='Leave the backend to "auto", or say "torch".'
        )
    if group.rank == 0:
        warnings.warn(f"Gradients travel over {group}, not through shared memory: {found}.", stacklevel=2)
    return TorchCollectives(group, StoreHeartbeats.of(group))


class SharedMemoryCollectives:
    """All-reduce and broadcast in shared memory; what it cannot carry goes through torch's group.

    Args:
        communicator: of all ranks.
        others: for sparse and complex gradients.
    """

    shares_memory = True

    def __init__(self, communicator: Communicator, others: TorchCollectives) -> None:
        self.communicator, self.others = communicator, others
        self.world_size = communicator.world_size

    def empty(self, numel: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """An uninitialised tensor of shape (numel,) that travels without a copy.

        Raises:
            LaunchError: this host has no memory left.
        """
        try:
            return self.communicator.empty(numel, dtype)
        except OSError as error:
            raise LaunchError(
                f"Rank {self.communicator.rank} got no shared memory for {numel} {dtype}: {error.strerror or error}.",
                mend='Free memory, or train with backend="torch".',
            ) from error

    def all_reduce(self, flat: torch.Tensor, label: str, scale: float = 1.0) -> AnyWork:
        """Starts an all-reduce (sum) of ``flat`` times ``scale``, in place."""
        if self.communicator.supports(flat):
            return self.communicator.all_reduce(flat, scale=scale, label=label)
        return self.others.all_reduce(flat, label, scale)

    def broadcast(self, flat: torch.Tensor, label: str) -> Work:
        """Starts a broadcast of rank 0's ``flat``, in place."""
        return self.communicator.broadcast(flat, label=label)

    def all_gather(self, rows: torch.Tensor, flat: torch.Tensor, label: str) -> Work:
        """Starts copying the ranks' ``flat`` into the rows of ``rows``."""
        return self.communicator.all_gather(list(rows), flat, label=label)

    def close(self) -> None:
        """Finishes what is on its way and takes part no more."""
        self.communicator.close()
