"""Compares a drawn model with its parallel self over a few steps."""

from __future__ import annotations

import copy
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

import autopar
from autopar.structure import take_apart

__all__ = ["check", "check_file"]

ROWS = (4, 4, 6, 2, 3)


def check_file(file: str) -> str | None:
    """The first difference of the model that a file defines, in words; None where there is none."""
    return check(Path(file).read_text())


def check(source: str) -> str | None:
    """The first difference of the model that a source defines, in words; None where there is none."""
    drawn: Any = ModuleType("drawn")
    sys.modules["drawn"] = drawn  # where a dataclass looks for its module
    exec(compile(source, "<drawn>", "exec"), vars(drawn))
    plain: nn.Module = drawn.build()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = autopar.parallelize(copy.deepcopy(plain), "ddp")
        for step, rows in enumerate(ROWS):
            torch.manual_seed(100 + step)
            args, kwargs = drawn.inputs(rows)
            difference = _difference(_step(model, args, kwargs), _step(plain, args, kwargs))
            if difference is not None:
                return f"step {step} with {rows} rows: {difference}"
    return None


def _step(model: nn.Module, args: Any, kwargs: Any) -> dict[str, Any]:
    """Everything that a step leaves behind, by name."""
    torch.manual_seed(7)
    model.zero_grad(set_to_none=True)
    leaves, structure = take_apart(model(*copy.deepcopy(args), **copy.deepcopy(kwargs)))
    loss = sum(
        (leaf * torch.linspace(0.5, 1.5, leaf.numel()).reshape(leaf.shape)).sum()
        for leaf in leaves
        if isinstance(leaf, torch.Tensor) and leaf.requires_grad
    )
    if isinstance(loss, torch.Tensor):
        loss.backward()
    return {
        "the structure": structure,
        **{f"output {index}": leaf for index, leaf in enumerate(leaves)},
        **{f"the gradient of {name}": parameter.grad for name, parameter in model.named_parameters()},
        **{f"the buffer {name}": buffer.clone() for name, buffer in model.named_buffers()},
        **{f"{path}.calls": vars(m)["calls"] for path, m in model.named_modules() if "calls" in vars(m)},
        "the random stream": torch.get_rng_state(),
    }


def _difference(found: dict[str, Any], expected: dict[str, Any]) -> str | None:
    for name, value in expected.items():
        other = found.get(name)
        if isinstance(value, torch.Tensor) and isinstance(other, torch.Tensor):
            same = value.shape == other.shape and bool(torch.equal(value.nan_to_num(), other.nan_to_num()))
        else:
            same = type(value) is type(other) and value == other
        if not same:
            return f"{name} differs"
    return None
