"""What the zoo knows of a model: how to build it, feed it and take its loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

__all__ = ["Call", "Entry", "own_loss", "plain_loss"]

Call: TypeAlias = "tuple[Any, ...] | dict[str, Any]"  # positional arguments, or keyword arguments


def own_loss(result: Any) -> torch.Tensor:
    """The loss that the model has computed itself, since it was given labels."""
    loss: torch.Tensor = result["loss"] if isinstance(result, Mapping) else result.loss
    return loss


def plain_loss(result: Any) -> torch.Tensor:
    """A loss for models that have none: how far each output that requires a gradient is from a ramp.

    Neither zero outputs nor normalised ones have a zero gradient then, as they have under a sum of squares.
    """
    terms = list(_terms(result))
    assert terms, "no output requires a gradient"
    return torch.stack(terms).sum()


def _terms(result: Any) -> Iterator[torch.Tensor]:
    for leaf in tree_leaves(dict(result) if isinstance(result, Mapping) else result):
        if isinstance(leaf, torch.Tensor) and leaf.requires_grad:
            ramp = torch.linspace(-1.0, 1.0, leaf.numel()).reshape(leaf.shape)
            yield (leaf.float() - ramp).square().mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A model of the zoo.

    Attributes:
        name: unique, as it stands in the table and in test names.
        library: distribution that it comes from.
        build: makes it in train mode, from the random numbers that are set then.
        inputs: makes a call for a batch of so many samples.
        loss: of the model's result.
        tags: what kind of model it is.
        unused: whether a step may leave parameters without a gradient, on one rank or on all:
            torch's DDP has to be told, with ``find_unused_parameters=True``.
    """

    name: str
    library: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], Call]
    loss: Callable[[Any], torch.Tensor] = plain_loss
    tags: frozenset[str] = frozenset()
    unused: bool = False
