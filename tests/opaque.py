"""A module that stays one opaque call, whatever capture learns."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def kept_whole(module: ModuleT) -> ModuleT:
    """The module with a hook that does nothing: hooks run in eager code only."""
    module.register_forward_hook(_nothing)
    return module


def _nothing(module: nn.Module, args: Any, output: Any) -> None:
    """A forward hook without effect."""
