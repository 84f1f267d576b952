"""What the engine refuses, in words."""

from __future__ import annotations

from collections.abc import Callable

import torch

from autopar.errors import PlanError, RuntimeStateError
from autopar.partitioner.plan import LocalParameter
from autopar.runtime.bucket_kinds import AnyBucket, names

__all__ = [
    "asked_for_hooked_gradients",
    "refuse_gradient",
    "says_another_compression",
    "sent_too_early",
    "weighted_grad",
]


def asked_for_hooked_gradients(bucket: AnyBucket) -> RuntimeStateError:
    """``torch.autograd.grad`` wants gradients that only hooks could gather."""
    return RuntimeStateError(
        f"torch.autograd.grad() was asked for gradients of bucket {bucket.spec.index} ({names(bucket)}).",
        why="They are in an opaque module, where only hooks see gradients, and grad() runs none.",
        mend="Use backward() and .grad for them, or free the module: `autopar transform` says why it is opaque.",
    )


def sent_too_early(bucket: AnyBucket, step: int) -> RuntimeStateError:
    """A gradient came after its bucket was sent."""
    return RuntimeStateError(
        f"Step {step}: a parameter of bucket {bucket.spec.index} ({names(bucket)}) got another gradient after its "
        "bucket was sent.",
        why="The opaque module that owns it began to checkpoint after the first step.",
        mend="Let the first step use that module as the later ones do.",
    )


def weighted_grad(bucket: AnyBucket) -> RuntimeStateError:
    """``torch.autograd.grad`` under ``weight=``."""
    return RuntimeStateError(
        f"torch.autograd.grad() was asked for gradients of bucket {bucket.spec.index} ({names(bucket)}) under weight=.",
        why="Only backward() counts what a gradient weighs.",
        mend="Use backward() and .grad, or leave weight= out.",
    )


def refuse_gradient(local: LocalParameter) -> Callable[[torch.Tensor], None]:
    """A hook for a parameter that the plan leaves out because it gets no gradient."""

    def refuse(parameter: torch.Tensor) -> None:
        raise RuntimeStateError(
            f"Parameter {local.name!r} got a gradient, which no bucket carries to the other ranks.",
            why=f"In the call that the plan was made for, {local.reason}.",
            mend="Give example_inputs that use every parameter, or freeze it with requires_grad_(False).",
        )

    return refuse


def says_another_compression(bucket: AnyBucket, compression: str) -> PlanError:
    """A program, such as a printed one that was edited, and its plan differ."""
    return PlanError(
        f"The program sends bucket {bucket.spec.index} ({names(bucket)}) as {compression or 'it is'}, and the "
        f"plan says {bucket.spec.compression or 'as it is'}.",
        mend="Change both alike, or run `autopar transform` again with the compression that you want.",
    )
