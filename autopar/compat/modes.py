"""Modes that are in force, and a mode that counts FLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.utils.checkpoint
from torch.overrides import _pop_mode_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

__all__ = [
    "FlopCounter",
    "ambient_modes",
    "in_function_transform",
    "without_function_mode",
]


def in_function_transform() -> bool:
    """Whether this runs inside of ``torch.func``'s transforms, such as ``vmap`` (2.11-2.13)."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def ambient_modes() -> tuple[Any, ...]:
    """What besides inputs and grad mode decides what an operation does."""
    cpu, cuda = torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")
    return (
        torch.is_inference_mode_enabled(),
        torch.get_autocast_dtype("cpu") if cpu else None,
        torch.get_autocast_dtype("cuda") if cuda else None,
    )


def without_function_mode() -> AbstractContextManager[Any]:
    """Within this block the innermost torch function mode is not active."""
    return _pop_mode_temporarily()


# torch counts the attention kernels of GPUs (2.11-2.13); the CPU's multiplies the same and takes the same arguments.
_COUNTED_AS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: torch.ops.aten._scaled_dot_product_flash_attention
}


class FlopCounter(TorchDispatchMode):
    """Counts floating-point operations with the formulas of ``torch.utils.flop_counter``.

    That module's own mode imports dynamo when it is first entered, because torch hides each dispatch
    mode from dynamo; this takes over a second on torch 2.13 and nothing here is compiled.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self._known: dict[tuple[Any, ...], int] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        packet = func._overloadpacket
        formula = flop_registry.get(_COUNTED_AS.get(packet, packet))
        if formula is not None:
            self.total += self._flops(formula, args, kwargs, result)
        return result

    def _flops(self, formula: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> int:
        """What the formula says, asked once for the same shapes: torch walks through all arguments as trees for it."""
        try:
            key = (formula, *(arg.shape if isinstance(arg, torch.Tensor) else arg for arg in args), *kwargs.items())
            if key not in self._known:
                self._known[key] = int(formula(*args, **kwargs, out_val=result))
            return self._known[key]
        except TypeError:  # a list of arguments has no hash
            return int(formula(*args, **kwargs, out_val=result))
