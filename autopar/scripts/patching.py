"""Sets attributes of other modules for the length of a block, and knows where torch keeps its wrappers."""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

__all__ = ["Patches", "replace_wrappers"]


class Patches(contextlib.ExitStack):
    """An exit stack that sets attributes and puts the old values back, the last one first.

    >>> import math
    >>> with Patches() as patches:
    ...     patches.set(math, "tau", 6)
    ...     math.tau
    6
    >>> math.tau > 6
    True
    """

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Sets ``owner.name`` until the block ends.

        Raises:
            AttributeError: the owner has no such attribute to put back.
        """
        self.callback(setattr, owner, name, getattr(owner, name))
        setattr(owner, name, value)


def replace_wrappers(patches: Patches, *, data_parallel: type[Any], distributed: type[Any]) -> None:
    """Puts other classes in every public place of torch's two wrappers."""
    # torch.nn.parallel.data_parallel is a function that hides the submodule of the same name, so the
    # submodules are fetched by name rather than by attribute.
    for home in ("torch.nn", "torch.nn.parallel", "torch.nn.parallel.data_parallel"):
        patches.set(importlib.import_module(home), "DataParallel", data_parallel)
    patches.set(importlib.import_module("torch.nn.parallel"), "DistributedDataParallel", distributed)
    original = importlib.import_module("torch.nn.parallel.distributed")
    patches.set(original, "DistributedDataParallel", _constructing(original.DistributedDataParallel, distributed))


def _constructing(original: Any, other: type[Any]) -> Any:
    """The original class, but constructing it makes an ``other``, which also passes as its instance.

    For the module in which torch itself looks its class up: torch.compile calls class methods of it.
    """
    made = type(original)(
        original.__name__, (original,), {"__new__": lambda cls, *args, **kwargs: other(*args, **kwargs)}
    )
    made.register(other)  # an abstract base class, through Joinable
    return made
