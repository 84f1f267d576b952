"""Makes a plan's buckets: a flat one for dense gradients, another kind for a sparse one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import nn

from autopar import compat
from autopar.partitioner.plan import Plan
from autopar.runtime.bucket import Bucket
from autopar.runtime.collectives import Collectives
from autopar.runtime.sparse import SparseBucket

__all__ = ["AnyBucket", "handed_out", "is_watched", "make_buckets", "names"]

AnyBucket: TypeAlias = "Bucket | SparseBucket"
_KINDS: dict[str, type[Bucket | SparseBucket]] = {"strided": Bucket, "sparse": SparseBucket}


def make_buckets(
    plan: Plan, parameters: Mapping[str, nn.Parameter], collectives: Collectives, *, hooked: bool
) -> list[AnyBucket]:
    """The buckets, in launch order.

    Args:
        plan: says what is in them.
        parameters: the model's, by canonical name.
        collectives: the backend.
        hooked: a communication hook reduces them: sums that it divides itself, in one message each.
    """
    scale = 1.0 if hooked else 1.0 / collectives.world_size
    return [
        _KINDS[spec.layout](
            spec,
            [parameters[name] for name in spec.parameters],
            scale=scale,
            collectives=collectives,
            whole=hooked or bool(spec.compression),
        )
        for spec in plan.buckets
    ]


def handed_out(bucket: AnyBucket) -> Sequence[torch.Tensor | None]:
    """What autograd passes on of a bucket that was sent: None where this rank had no gradient."""
    views = bucket.views()
    return [None if i in bucket.missing else view for i, view in enumerate(views)] if bucket.missing else views


def is_watched(bucket: AnyBucket) -> bool:
    """Whether anything would read a gradient of the bucket while it travels, or add to it."""
    return any(p.grad is not None or compat.runs_user_hooks(p) for p in bucket.parameters)


def names(bucket: AnyBucket) -> str:
    """The bucket's parameters, for messages."""
    first, count = bucket.spec.parameters[0], len(bucket.spec.parameters)
    return first if count == 1 else f"{first} and {count - 1} more"
