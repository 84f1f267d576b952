"""In which order the gradients of a model arrive, and how far that is from an order that was expected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["arriving", "exchanged"]


@contextmanager
def arriving(model: nn.Module) -> Iterator[list[str]]:
    """Notes, for the backward within this block, the parameters in the order in which their gradients are complete."""
    seen: list[str] = []
    hooks = [p.register_hook(_note(name, seen)) for name, p in model.named_parameters() if p.requires_grad]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _note(name: str, seen: list[str]) -> Callable[[torch.Tensor], None]:
    def note(gradient: torch.Tensor) -> None:
        if name in seen:  # a checkpoint's own backward adds to what is there
            seen.remove(name)
        seen.append(name)

    return note


def exchanged(expected: Sequence[str], arrivals: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of parameters that arrive the other way round than expected (those of Kendall's distance).

    Raises:
        KeyError: a gradient arrived that nobody expected.
    """
    place = {name: index for index, name in enumerate(expected)}
    positions = [place[name] for name in arrivals]
    return [
        (arrivals[one], arrivals[other])
        for one in range(len(arrivals))
        for other in range(one + 1, len(arrivals))
        if positions[one] > positions[other]
    ]
