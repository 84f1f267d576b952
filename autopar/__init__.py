"""autopar turns a PyTorch model into a data-parallel one, shows what it did, and keeps it exact.

    import autopar

    model = autopar.parallelize(model)      # the same object; run the script with `autopar run --nproc 2`

Everything public is listed in ``__all__``; all else may change. Importing this package is cheap:
torch and the compiler are imported when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "DDP": "autopar.strategies",
    "DataParallel": "autopar.strategies",
    "ZeRO1": "autopar.strategies",
    "PassObserver": "autopar.passes.observers",
    "Plan": "autopar.partitioner.plan",
    "Program": "autopar.program",
    "Remark": "autopar.program",
    "flush": "autopar.api",
    "join": "autopar.api",
    "load": "autopar.checkpoint",
    "no_sync": "autopar.api",
    "observing": "autopar.passes.observers",
    "parallelize": "autopar.api",
    "register_pass": "autopar.passes.registry",
    "register_strategy": "autopar.strategies",
    "report": "autopar.api",
    "save": "autopar.checkpoint",
    "shard": "autopar.api",
    "shard_optimizer": "autopar.optimizers",
    "trace": "autopar.api",
    "unparallelize": "autopar.api",
    "verify": "autopar.verification",
}
_MODULES = ("errors", "nn", "ops", "strategies")

__all__ = [
    "DDP",
    "DataParallel",
    "PassObserver",
    "Plan",
    "Program",
    "Remark",
    "ZeRO1",
    "__version__",
    "errors",
    "flush",
    "join",
    "load",
    "nn",
    "no_sync",
    "observing",
    "ops",
    "parallelize",
    "register_pass",
    "register_strategy",
    "report",
    "save",
    "shard",
    "shard_optimizer",
    "strategies",
    "trace",
    "unparallelize",
    "verify",
]

if TYPE_CHECKING:
    from autopar import errors, nn, ops, strategies
    from autopar.api import flush, join, no_sync, parallelize, report, shard, trace, unparallelize
    from autopar.checkpoint import load, save
    from autopar.optimizers import shard_optimizer
    from autopar.partitioner.plan import Plan
    from autopar.passes.observers import PassObserver, observing
    from autopar.passes.registry import register_pass
    from autopar.program import Program, Remark
    from autopar.strategies import DDP, DataParallel, ZeRO1, register_strategy
    from autopar.verification import verify


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"autopar.{name}")
    raise AttributeError(f"module 'autopar' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
