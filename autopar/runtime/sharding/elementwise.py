"""Whether an optimizer updates each element by itself, so that a rank can update a part of a parameter."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

__all__ = ["refusal_of"]

_STEPS, _SHAPE, _CUT = 3, (6, 7), 19
_ROUNDING = 64.0  # units in the last place


def refusal_of(optimizer: Optimizer) -> str | None:
    """Why parts of parameters cannot be updated by themselves; None where they can.

    Tried, not looked up: for each group of options a small parameter is trained whole and in two parts, by the
    optimizer's own code with those options, and both must be equal up to rounding: fused kernels round the elements
    that do not fill a vector differently.
    """
    for group in optimizer.param_groups:
        if not group["params"]:
            continue
        like = group["params"][0]
        generator = torch.Generator().manual_seed(0)
        start, *gradients = (torch.randn(_SHAPE, generator=generator).to(like) for _ in range(_STEPS + 1))
        try:
            (whole,) = _trained(optimizer, group, [start], [[gradient] for gradient in gradients])
            parts = _trained(optimizer, group, _cut(start), [_cut(gradient) for gradient in gradients])
        except Exception as error:
            return f"a step on a part of a parameter raises {type(error).__name__}: {str(error).splitlines()[0]}"
        bound = _ROUNDING * torch.finfo(whole.dtype).eps
        if not torch.allclose(torch.cat(parts), whole.reshape(-1), rtol=bound, atol=bound):
            return "a parameter in parts becomes another than the whole one"
    return None


def _cut(tensor: torch.Tensor) -> list[torch.Tensor]:
    flat = tensor.reshape(-1)
    return [flat[:_CUT], flat[_CUT:]]


def _trained(
    optimizer: Optimizer,
    group: Mapping[str, Any],
    values: Sequence[torch.Tensor],
    gradients: Sequence[Sequence[torch.Tensor]],
) -> list[torch.Tensor]:
    parameters = [nn.Parameter(value.clone()) for value in values]
    twin = object.__new__(type(optimizer))
    vars(twin).update(vars(optimizer))
    for name in ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"):
        setattr(twin, name, OrderedDict())
    options = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in group.items()}
    twin.param_groups, twin.state = [{**options, "params": parameters}], defaultdict(dict)
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.clone()
        type(twin).step(twin)  # a schedule may have put another on the instance
    return [parameter.detach() for parameter in parameters]
