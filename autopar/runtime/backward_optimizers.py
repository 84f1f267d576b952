"""Optimizers that step in backward: with averaged gradients, as soon as backward is over.

``torch.distributed.optim._apply_optimizer_in_backward`` lets an optimizer step when a parameter's
gradient is accumulated. On a parameter that is synchronised this is too early: the gradient is this
rank's own, or still travels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from torch import nn

__all__ = ["BackwardOptimizers"]

_ON_PARAMETER = "_in_backward_optimizers"  # where torch hangs them (2.11-2.13)


class BackwardOptimizers:
    """Takes over the optimizers of some parameters.

    Args:
        parameters: those that are synchronised.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._optimizers: list[tuple[nn.Parameter, Collection[Any]]] = [
            (parameter, optimizers) for parameter in parameters if (optimizers := getattr(parameter, _ON_PARAMETER, ()))
        ]

        if not self._optimizers:
            return
        # Here, because it takes seconds; whoever gave the parameters optimizers has imported it already.
        from torch.distributed.optim.apply_optimizer_in_backward import param_to_optim_hook_handle_map

        for parameter, _ in self._optimizers:
            for handle in param_to_optim_hook_handle_map.get(parameter, ()):
                handle.remove()

    def __bool__(self) -> bool:
        return bool(self._optimizers)

    def step(self) -> None:
        """Steps, and drops the gradients that were stepped with."""
        for parameter, optimizers in self._optimizers:
            if parameter.grad is not None:
                for optimizer in optimizers:
                    optimizer.step()
                parameter.grad = None
