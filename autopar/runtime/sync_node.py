"""Autograd's side of a bucket: the node whose backward hands the bucket its gradients."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch

from autopar.runtime.bucket import python_references

__all__ = ["NOBODYS", "Launch", "SyncGradients", "sole_owner_references"]

NOBODYS = 0  # for Bucket.load: every gradient is somebody's


class SyncGradients(torch.autograd.Function):
    """Identity whose backward runs when the gradients of all of a bucket's parameters are complete.

    Complete as far as the program knows: a parameter that the loss uses as well gets more on another
    way, which autograd adds in the parameter's own node. Only behind those nodes is it known, and there
    ``Launch`` runs.
    """

    @staticmethod
    def forward(ctx: Any, engine: Any, bucket: Any, launch: torch.Tensor, *parameters: torch.Tensor) -> Any:
        """The parameters again."""
        ctx.engine, ctx.bucket = engine, bucket
        ctx.set_materialize_grads(False)
        # detach() instead of the parameter itself: returning an input costs a view_as each
        # (1.2 against 0.8 ms for 128 parameters, torch 2.13 on CPU)
        return tuple([parameter.detach() for parameter in parameters])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> Any:
        """Whatever the engine makes of the gradients."""
        return (None, None, None, *ctx.engine.reduce(ctx.bucket, gradients))


class Launch(torch.autograd.Function):
    """Made right before a ``SyncGradients``, so that its backward runs next but for the parameters' own nodes.

    Autograd runs what is ready in the order of the nodes' making, latest first; a parameter's node goes before all.
    """

    @staticmethod
    def forward(ctx: Any, engine: Any, bucket: Any, anchor: torch.Tensor) -> torch.Tensor:
        """A number that nobody uses, for ``SyncGradients``."""
        ctx.engine, ctx.bucket = engine, bucket
        ctx.set_materialize_grads(False)
        return anchor.detach()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor | None) -> Any:
        """Lets the engine send the bucket."""
        ctx.engine.launch(ctx.bucket)
        return None, None, None


@functools.cache
def sole_owner_references() -> int:
    """What ``python_references`` gives inside a node's backward for a gradient that nobody else has.

    Measured on a gradient of which that is known, because the number differs between versions of
    Python: it counts the argument tuples on the way from autograd to ``Bucket.load``.
    """
    counts: list[int] = []

    class Probe:
        def reduce(self, bucket: None, gradients: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
            for i in range(len(gradients)):
                gradient = gradients[i]
                counts.append(python_references(gradient))
            return gradients

    with torch.enable_grad():
        weight = torch.ones(2, 2, requires_grad=True)
        (synced,) = SyncGradients.apply(Probe(), None, torch.zeros(()), weight)
        torch.autograd.grad(torch.nn.functional.linear(torch.ones(1, 2), synced).sum(), weight)
    return counts[0]
