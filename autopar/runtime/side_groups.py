"""Further process groups of the same ranks, for messages whose order is not the bucket engine's.

They are kept for whoever needs one next and never destroyed while their ranks train: torch names a group by how many
there are, so that one made after another was destroyed gets that one's name, and finds the addresses that it left in
the store.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from datetime import timedelta

import torch.distributed as dist

from autopar.runtime.group import Group
from autopar.shm import NAME

__all__ = ["take"]

Spare = dict[tuple[str, float], list[dist.ProcessGroup]]  # by backend and by how long its ranks wait

_spare: weakref.WeakKeyDictionary[dist.ProcessGroup, Spare] = weakref.WeakKeyDictionary()


def take(group: Group, *, shared: bool) -> tuple[dist.ProcessGroup, Callable[[], None]]:
    """A group that nobody else uses, and what gives it back; both called on all ranks in the same order.

    Args:
        group: the ranks, and how long they wait.
        shared: through shared memory.
    """
    assert group.handle is not None, "several ranks have a process group"
    backend = NAME if shared else str(dist.get_backend(group.handle))
    spare = _spare.setdefault(group.handle, {}).setdefault((backend, group.timeout), [])
    taken: dist.ProcessGroup = (
        spare.pop()
        if spare
        else dist.new_group(
            dist.get_process_group_ranks(group.handle),
            timeout=timedelta(seconds=group.timeout),
            backend=backend,
            use_local_synchronization=True,
        )
    )
    return taken, lambda: spare.append(taken)
