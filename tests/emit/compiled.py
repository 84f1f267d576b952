"""Compiles, prints and executes the models of these tests."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autopar import compat
from autopar.compilation import Compilation, compile_program
from autopar.emit import Source, emit_python
from autopar.passes.observers import PassObserver
from autopar.strategies import DDP
from autopar.strategies.base import Strategy

SMALL = DDP(bucket_cap_mb=0.0001, first_bucket_mb=0.0001)


def compiled(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    strategy: Strategy = SMALL,
    capture: str = "auto",
    observers: Sequence[PassObserver] = (),
) -> Compilation:
    """The compilation of a model, with buckets of about 100 bytes."""
    return compile_program(model, args, kwargs or {}, strategy, capture=capture, observers=observers)


def printed(compilation: Compilation, file: Path, name: str) -> tuple[str, dict[str, Any]]:
    """The printed file, which holds its plan, and the namespace after its import."""
    text = emit_python(compilation, source=Source(file, name), plan_file=None)
    namespace: dict[str, Any] = {"__name__": "transformed", "__file__": str(file.parent / "transformed.py")}
    exec(compile(text, "transformed.py", "exec"), namespace)
    return text, namespace


def step(model: nn.Module, forward: Any, args: Any, kwargs: Any) -> list[Any]:
    """Outputs, gradients and buffers after one step on a copy of the model."""
    model, args, kwargs = copy.deepcopy((model, args, kwargs))
    torch.manual_seed(0)
    result = forward(model, *args, **kwargs)
    leaves = [getattr(leaf, "x", leaf) for leaf in compat.tree_flatten(result)[0]]
    sum(leaf.square().sum() for leaf in leaves if isinstance(leaf, torch.Tensor)).backward()
    return [*leaves, *(p.grad for p in model.parameters()), *model.buffers()]


def assert_equal(one: list[Any], other: list[Any]) -> None:
    """Bitwise, in order."""
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        if isinstance(left, torch.Tensor):
            assert torch.equal(torch.nan_to_num(left), torch.nan_to_num(right))
        else:
            assert left == right
