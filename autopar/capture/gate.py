"""The gate: one step of the captured program against one step of the eager model.

Outputs, every gradient, every buffer and the random streams must agree before a program is used.
On CPU they must agree bit for bit, since both run the same operations in the same order; elsewhere
within ``RELATIVE_TOLERANCE``, because atomics make even two eager steps differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from autopar import compat
from autopar.capture.state import preserved
from autopar.program import Program

__all__ = ["Step", "compare", "eager_step", "program_step"]

SEED = 20_230
RELATIVE_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Step:
    """What one forward and backward left behind."""

    outputs: list[Any]
    gradients: dict[str, torch.Tensor | None]
    buffers: dict[str, torch.Tensor]
    random: torch.Tensor


def eager_step(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Step:
    """One step of the user's model as it is; what it raises is the model's own error."""
    forward = compat.original_class(model).forward if "forward" not in vars(model) else model.forward
    bound = (model,) if "forward" not in vars(model) else ()

    def run() -> list[Any]:
        return compat.tree_flatten(forward(*bound, *args, **kwargs))[0]

    return _step(model, run)


def program_step(program: Program) -> Step:
    """The same step of a captured program, on its example inputs."""

    def run() -> list[Any]:
        leaves = program.graph_module.forward(*program.example)
        return compat.tree_flatten(program.signature.unflatten(leaves))[0]

    return _step(program.model, run)


def compare(eager: Step, captured: Step) -> str | None:
    """The first difference in words, or None when the steps agree."""
    if len(eager.outputs) != len(captured.outputs):
        return f"it returned {len(captured.outputs)} values instead of {len(eager.outputs)}"
    for index, (one, other) in enumerate(zip(eager.outputs, captured.outputs, strict=True)):
        if not _agree(one, other):
            return f"output {index} differed from eager"
    for name, gradient in eager.gradients.items():
        if not _agree(gradient, captured.gradients[name]):
            return f"the gradient of {name!r} differed from eager"
    for name, buffer in eager.buffers.items():
        if not _agree(buffer, captured.buffers[name]):
            return f"the buffer {name!r} differed from eager"
    if not torch.equal(eager.random, captured.random):
        return "it drew other random numbers than eager"
    return None


def _step(model: nn.Module, run: Any) -> Step:
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with preserved(model, seed=SEED), torch.enable_grad():
        outputs = run()
        random = torch.random.get_rng_state()
        differentiable = [leaf for leaf in outputs if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
        gradients: dict[str, torch.Tensor | None] = dict.fromkeys(trainable)
        if differentiable and trainable:
            found = torch.autograd.grad(
                differentiable,
                list(trainable.values()),
                [_seed_gradient(leaf) for leaf in differentiable],
                allow_unused=True,
            )
            gradients = dict(zip(trainable, found, strict=True))
        return Step(
            outputs=[leaf.detach() if isinstance(leaf, torch.Tensor) else leaf for leaf in outputs],
            gradients=gradients,
            buffers={name: buffer.detach().clone() for name, buffer in model.named_buffers()},
            random=random,
        )


def _seed_gradient(output: torch.Tensor) -> torch.Tensor:
    """A gradient that no symmetry of the model cancels: all ones would, after a normalisation."""
    ramp = torch.linspace(0.5, 1.5, max(output.numel(), 1), device=output.device)[: output.numel()]
    return ramp.to(output.dtype).reshape(output.shape)


def _agree(one: Any, other: Any) -> bool:
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return type(one) is type(other) and (not isinstance(one, (bool, int, float, str)) or one == other)
    if one.shape != other.shape or one.dtype != other.dtype or one.layout != other.layout:
        return False
    if one.layout != torch.strided:
        one, other = one.to_dense(), other.to_dense()
    tolerance = 0.0 if one.device.type == "cpu" else RELATIVE_TOLERANCE
    return torch.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True)
