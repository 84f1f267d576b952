"""Drop-ins with the signatures of torch's own wrappers, for scripts that are not to be edited.

What may live here: thin classes over ``autopar.parallelize``. What may not: anything that
``parallelize`` cannot do.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["DataParallel", "DistributedDataParallel"]

_HOMES = {"DataParallel": "autopar.nn.data_parallel", "DistributedDataParallel": "autopar.nn.distributed"}

if TYPE_CHECKING:
    from autopar.nn.data_parallel import DataParallel
    from autopar.nn.distributed import DistributedDataParallel


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'autopar.nn' has no attribute {name!r}")
