"""Calls a wrapped module through its attachment, with the module's own hooks around the call."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from autopar import compat
from autopar.attach import Attachment

__all__ = ["call_inside", "moved"]


def call_inside(module: nn.Module, attachment: Attachment, inputs: Any, kwargs: Any) -> Any:
    """What ``module(*inputs, **kwargs)`` gives when the attachment runs its forward.

    Where the module has a forward of its own, as trainers give it to lead their methods through the
    wrapper or to put autocast around it, that one runs.
    """
    own = vars(module)
    if "forward" in own:
        return attachment.run_as(module, inputs, kwargs)
    if not compat.has_module_hooks(module):
        return attachment.run(inputs, kwargs)

    # The module's own hooks run around its forward; while they do, its forward is ours.
    def once(*inputs: Any, **kwargs: Any) -> Any:
        own.pop("forward", None)
        return attachment.run(inputs, kwargs)

    own["forward"] = once
    try:
        return module(*inputs, **kwargs)
    finally:
        own.pop("forward", None)


def moved(tree: Any, device: torch.device) -> Any:
    """The structure with its tensors on a device."""
    leaves, spec = compat.tree_flatten(tree)
    return compat.tree_unflatten(
        [leaf.to(device, non_blocking=True) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves], spec
    )
