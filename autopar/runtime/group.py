"""The process group: joined from the launcher's environment, or the one that is already there."""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from autopar import compat
from autopar.errors import LaunchError

__all__ = ["Group", "join", "launched_world_size"]

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class Group:
    """The ranks that share a step.

    Attributes:
        handle: torch's process group; None where there is only this process.
        rank: this process among them.
        world_size: how many they are.
        timeout: seconds that a rank waits for the others.
    """

    handle: dist.ProcessGroup | None
    rank: int
    world_size: int
    timeout: float = 300.0

    def __str__(self) -> str:
        if self.handle is None:
            return "one process"
        return f"rank {self.rank} of {self.world_size} over {dist.get_backend(self.handle)}"


def launched_world_size() -> int | None:
    """World size that a launcher such as torchrun has set, or that of the group that is there; None without.

    Raises:
        LaunchError: the launcher's variables are incomplete or contradict each other.
    """
    if dist.is_initialized():
        return dist.get_world_size()
    present = [name for name in _VARIABLES if name in os.environ]
    if "RANK" not in present and "WORLD_SIZE" not in present:
        return None
    missing = [name for name in _VARIABLES if name not in present]
    if missing:
        raise LaunchError(
            f"The launch environment is incomplete: {', '.join(present)} set, {', '.join(missing)} missing.",
            mend="Start with `autopar run --nproc N script.py` or torchrun, or unset them to run one process.",
        )
    rank, size, _ = _number("RANK"), _number("WORLD_SIZE"), _number("MASTER_PORT")
    if size < 1 or not 0 <= rank < size:
        raise LaunchError(
            f"The launch environment says RANK={rank} and WORLD_SIZE={size}.",
            mend="WORLD_SIZE must be 1 or more and RANK one of 0 to WORLD_SIZE - 1.",
        )
    return size


def join(device: torch.device, *, timeout: float, process_group: dist.ProcessGroup | None = None) -> Group:
    """The group to train with: the given one, the default one, or one made from the environment.

    A group made here is destroyed when the process ends; one that was there is left alone.

    Args:
        device: where the model lives; chooses gloo (CPU) or nccl (CUDA).
        timeout: seconds that a rank waits for the others.
        process_group: an existing group.

    Raises:
        LaunchError: the environment is broken, or the ranks did not find each other in time.
    """
    size = launched_world_size()
    if size is None and process_group is None:
        return Group(None, 0, 1)
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        try:
            patience = timedelta(seconds=timeout)
            dist.init_process_group(backend, timeout=patience, **_store_of_this_start(patience))
        except (RuntimeError, ValueError) as error:
            where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise LaunchError(
                f"Rank {os.environ['RANK']} could not join the process group at {where}: "
                f"{str(error).splitlines()[0].rstrip('.')}.",
                mend="Check that all ranks are started and that the address can be reached.",
            ) from error
        atexit.register(_leave)
    handle = process_group or dist.group.WORLD
    assert handle is not None
    limit = compat.group_timeout(handle) or timeout
    return Group(handle, dist.get_rank(handle), dist.get_world_size(handle), limit)


def _store_of_this_start(patience: timedelta) -> dict[str, Any]:
    """Arguments of ``init_process_group`` with which restarted ranks do not find the addresses of those before them.

    torchrun keeps one store for all starts of a host. Hosts count their starts each for itself.
    """
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if start == "0" or not shared or os.environ.get("LOCAL_WORLD_SIZE") != os.environ["WORLD_SIZE"]:
        return {}
    store, rank, size = next(iter(rendezvous("env://", timeout=patience)))
    return {"store": compat.prefix_store(f"start_{start}", store), "rank": rank, "world_size": size}


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _number(name: str) -> int:
    try:
        return int(os.environ[name])
    except ValueError:
        raise LaunchError(
            f"The launch environment has {name}={os.environ[name]!r}, which is no number.",
            mend="Start with `autopar run --nproc N script.py` or torchrun.",
        ) from None
