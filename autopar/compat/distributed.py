"""Process groups, their backends and stores."""

from __future__ import annotations

import importlib
import pathlib
from datetime import timedelta
from typing import Any

import torch
import torch.utils.checkpoint

__all__ = [
    "GradBucket",
    "GroupWork",
    "all_gather_single",
    "checkpoint_records",
    "distributed_debug",
    "functional_collectives",
    "gloo_backend",
    "group_store",
    "group_timeout",
    "make_store_each_round",
    "prefix_store",
    "reduce_scatter_single",
    "set_cpu_backend",
    "set_launcher_store",
]


# What a communication hook is annotated to take (2.11-2.13).
GradBucket: Any = getattr(torch.distributed, "GradBucket", object)


# What c10d's collectives return; a subclass in Python may stand for it (2.11-2.13).
GroupWork: Any = getattr(torch.distributed, "Work", object)


def distributed_debug() -> bool:
    """Whether TORCH_DISTRIBUTED_DEBUG asks for more text (2.11-2.13: ``get_debug_level``)."""
    module: Any = torch.distributed
    return bool(module.get_debug_level() != module.DebugLevel.OFF)


def group_store(group: Any) -> Any:
    """The store at which the ranks of a process group met, on a connection of its own (2.11-2.13); None without one."""
    try:
        return group.get_group_store().clone()
    except (RuntimeError, NotImplementedError, AttributeError):  # groups without a store, stores without clones
        return None


def group_timeout(group: Any) -> float | None:
    """Seconds that the ranks of a process group wait for each other; None where it does not say."""
    for device in ("cpu", "cuda"):
        try:
            limit = group._get_backend(torch.device(device)).options._timeout
        except (RuntimeError, AttributeError):  # no such device, or a backend without options
            continue
        return float(limit.total_seconds())
    return None


def gloo_backend(store: Any, rank: int, size: int, timeout: timedelta) -> Any:
    """A gloo backend without a process group around it (2.11-2.13: ``ProcessGroupGloo``)."""
    return torch.distributed.ProcessGroupGloo(store, rank, size, timeout=timeout)


def functional_collectives() -> Any:
    """The module of collectives that are operations, which compilers see (2.11-2.13)."""
    return importlib.import_module("torch.distributed._functional_collectives")


def prefix_store(prefix: str, store: Any) -> Any:
    """A store of its own within another."""
    return torch.distributed.PrefixStore(prefix, store)  # type: ignore[attr-defined]


def set_cpu_backend(group: Any, backend: Any) -> None:
    """Lets a process group pass on to ``backend`` what it does not do itself."""
    kind = torch.distributed.ProcessGroup.BackendType.CUSTOM
    group._register_backend(torch.device("cpu"), kind, backend)
    group._set_default_backend(kind)


def all_gather_single(backend: Any, output: torch.Tensor, input: torch.Tensor, opts: Any) -> Any:
    """All-gather into one tensor (2.11, 2.12: ``_allgather_base``)."""
    method = getattr(backend, "all_gather_single", None) or backend._allgather_base
    return method(output, input, opts)


def reduce_scatter_single(backend: Any, output: torch.Tensor, input: torch.Tensor, opts: Any) -> Any:
    """Reduce-scatter of one tensor (2.11, 2.12: ``_reduce_scatter_base``)."""
    method = getattr(backend, "reduce_scatter_single", None) or backend._reduce_scatter_base
    return method(output, input, opts)


def set_launcher_store(store: Any, rendezvous: Any) -> None:
    """Lets torchrun make its stores with this class; for a process that only launches (2.11-2.13).

    Args:
        store: takes the place of ``torch.distributed.TCPStore``.
        rendezvous: the module ``torch.distributed.elastic.rendezvous.c10d_rendezvous_backend``.
    """
    rendezvous.TCPStore = store
    torch.distributed.TCPStore = store  # type: ignore[attr-defined]


def make_store_each_round(rendezvous: Any) -> None:
    """Lets torchrun make a store for each start of its ranks; for a process that only launches (2.11-2.13).

    It keeps the first one otherwise, and restarted ranks may find the addresses of those before them there.

    Args:
        rendezvous: the module ``torch.distributed.elastic.rendezvous.dynamic_rendezvous``.
    """
    handler = rendezvous.DynamicRendezvousHandler
    original = handler.next_rendezvous

    def next_rendezvous(self: Any) -> Any:
        self._shared_tcp_store_server = self._bootstrap_store_info = None
        return original(self)

    handler.next_rendezvous = next_rendezvous


def checkpoint_records(metadata: Any, filesystem: Any) -> dict[tuple[str, str], Any]:
    """What the index of a ``torch.distributed.checkpoint`` consists of, by module and name.

    Args:
        metadata: the module ``torch.distributed.checkpoint.metadata``.
        filesystem: the module ``torch.distributed.checkpoint.filesystem``.
    """
    own = [one for one in vars(metadata).values() if getattr(one, "__module__", "") == metadata.__name__]
    records = [*own, filesystem._StorageInfo, torch.serialization._get_layout, torch.Size]
    # a path's class says on which system the checkpoint was written
    paths = {(module, name): pathlib.PurePath for module in _PATH_MODULES for name in ("PosixPath", "WindowsPath")}
    return {(record.__module__, record.__qualname__): record for record in records} | paths


_PATH_MODULES = ("pathlib", "pathlib._local")  # Python 3.13 has them in the second
