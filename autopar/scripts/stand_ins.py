"""What a script sees while its model is built in one process: no launcher, no wrappers, maybe no GPU."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import autopar
from autopar import nn
from autopar.scripts.cuda_redirect import cuda_means_cpu
from autopar.scripts.patching import Patches, replace_wrappers

__all__ = ["Unwrapped", "standing_in"]

# As torchrun would set them for a single process, for scripts that read them to choose a device.
_ONE_RANK = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}


class Unwrapped:
    """Stands for torch's wrappers: constructing it gives the wrapped module itself.

    >>> Unwrapped("the module", device_ids=[0])
    'the module'
    """

    def __new__(cls, module: Any, *args: Any, **kwargs: Any) -> Any:
        """The module, unchanged."""
        return module

    def __class_getitem__(cls, item: object) -> type[Unwrapped]:
        return cls  # torch's DataParallel is generic in the module's class


@contextlib.contextmanager
def standing_in(script: Path) -> Iterator[None]:
    """Runs the block as if ``script`` were being run, alone, on this machine's devices.

    Standard output goes to standard error, so that a script's prints do not mix with autopar's data.
    """
    argv, path = sys.argv, list(sys.path)
    added = [name for name in _ONE_RANK if name not in os.environ]
    with Patches() as patches, contextlib.redirect_stdout(sys.stderr):
        # A script that calls autopar itself: whoever loads it here decides what becomes of the model.
        patches.set(autopar, "parallelize", Unwrapped)
        for name in ("DataParallel", "DistributedDataParallel"):
            patches.set(nn, name, Unwrapped)
        # After autopar's own, which are subclasses of torch's and must not be made from a stand-in.
        replace_wrappers(patches, data_parallel=Unwrapped, distributed=Unwrapped)
        if dist.is_available() and not dist.is_initialized():
            patches.set(dist, "get_rank", lambda group=None: 0)
            patches.set(dist, "get_world_size", lambda group=None: 1)
        if not torch.cuda.is_available():
            patches.enter_context(cuda_means_cpu())
        try:
            sys.argv, sys.path[:] = [str(script)], [str(script.parent), *path]
            os.environ.update({name: _ONE_RANK[name] for name in added})
            yield
        finally:
            sys.argv, sys.path[:] = argv, path
            for name in added:
                os.environ.pop(name, None)
