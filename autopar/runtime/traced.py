"""A parallel model inside of somebody else's ``torch.compile``: what dynamo follows in the place of the runtime.

Dynamo captures the user's own forward by itself, and needs no program of autopar's for it. What it takes from the
compilation is the plan: the parameters of each bucket pass through one function whose backward all-reduces them,
by operations only, so that one graph holds the model and its collectives.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.func import functional_call
from torch.utils.hooks import RemovableHandle

from autopar import compat
from autopar.partitioner.plan import Plan
from autopar.runtime.buffers import BufferBroadcast
from autopar.runtime.compiled import reduce_gradients
from autopar.runtime.engine import BucketEngine

__all__ = ["TracedForward", "at_first_gradient"]


class TracedForward:
    """The user's forward on parameters whose gradients come back as means over the ranks.

    Args:
        model: the user's model.
        plan: its buckets are the messages.
        group: the ranks.
    """

    def __init__(self, model: nn.Module, plan: Plan, group: dist.ProcessGroup) -> None:
        self._model, self._group = model, group
        self._whole = _Forward(model)
        self._buckets = [bucket.parameters for bucket in plan.buckets]
        self._planned = frozenset(name for names in self._buckets for name in names)
        self._scale = 1.0 / dist.get_world_size(group)

    @staticmethod
    def can_carry(plan: Plan) -> bool:
        """Whether operations alone can reduce every bucket: none that hooks serve, and no sparse or compressed one."""
        return all(b.route == "graph" and b.layout == "strided" and not b.compression for b in plan.buckets)

    def fits(self) -> bool:
        """Whether what is trained now is what the plan was made for."""
        return {name for name, p in self._model.named_parameters() if p.requires_grad} == self._planned

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The forward; for dynamo to follow."""
        parameters = dict(self._model.named_parameters())
        synced = {}
        for names in self._buckets:
            given = [parameters[name] for name in names]
            reduced = reduce_gradients(*given, group=self._group.group_name, scale=self._scale)
            for name, parameter in zip(names, reduced, strict=True):
                synced[f"inner.{name}"] = parameter
        return functional_call(self._whole, synced, (args, kwargs))


def at_first_gradient(plan: Plan, model: nn.Module, engine: BucketEngine, buffers: BufferBroadcast) -> RemovableHandle:
    """Sends the buffers in a backward that the engine has no part in, when a parameter gets its gradient."""

    def send(parameter: torch.Tensor) -> None:
        if engine.inside_graph:
            buffers.launch()
            compat.on_backward_end(buffers.wait)

    first = model.get_parameter(plan.buckets[0].parameters[0])
    handle: RemovableHandle = first.register_post_accumulate_grad_hook(send)
    return handle


class _Forward(nn.Module):
    """Calls the forward of the user's class, past the one that autopar put in front of it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.original = compat.original_class(inner).forward

    def forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The inner model's result."""
        return self.original(self.inner, *args, **kwargs)
