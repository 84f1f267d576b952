"""The gate: one step of the captured program against one step of the eager model.

Outputs, every gradient, every buffer, what the forward did to its inputs and attributes, and the
random streams must agree before a program is used; outputs, buffers and streams also in a second
forward from another seed. On CPU they must agree bit for bit, since both
run the same operations in the same order; elsewhere within ``RELATIVE_TOLERANCE``, because atomics
make even two eager steps differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import nn

from autopar import compat
from autopar.capture.call import Call, fresh
from autopar.capture.held import Delta
from autopar.capture.state import ModelState
from autopar.capture.streams import RandomStreams
from autopar.islands import around, stand_ins
from autopar.program import Program
from autopar.regions import outlined
from autopar.structure import take_apart

__all__ = ["SEEDS", "Step", "compare", "eager_forward", "eager_step", "one_step", "program_step"]

SEEDS = (20_230, 20_231)
RELATIVE_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one forward and backward left behind.

    Attributes:
        structure: pytree structure of the result.
        outputs: its leaves, detached.
        differentiable: for each leaf, whether it requires a gradient.
        inputs: the input tensors after the step.
        gradients: by parameter, and by input where one requires a gradient; None where there is no path.
        arrivals: parameters in the order in which backward completed their gradients.
        failure: what backward raised instead of giving gradients; empty where it did not.
        buffers: by name.
        changed: modules and the names of what the forward changed in them.
        delta: the same change, to be made again.
        random: the random streams after the forward.
        seconds: what forward and backward took.
    """

    structure: Any
    outputs: Sequence[Any]
    differentiable: Sequence[bool]
    inputs: Sequence[torch.Tensor]
    gradients: Mapping[str, torch.Tensor | None]
    arrivals: tuple[str, ...]
    failure: str
    buffers: Mapping[str, torch.Tensor]
    changed: Mapping[nn.Module, Sequence[str]]
    delta: Delta
    random: RandomStreams
    seconds: float


def eager_step(model: nn.Module, call: Call, state: ModelState, *, seed: int = SEEDS[0], backward: bool = True) -> Step:
    """One step of the user's model as it is.

    Raises:
        Exception: what its forward raises, unchanged.
    """
    return one_step(call, state, eager_forward(model, call), seed=seed, backward=backward)


def eager_forward(model: nn.Module, call: Call) -> Callable[[Sequence[torch.Tensor]], Any]:
    """Runs the user's model as it is on the tensors of a call."""
    own = vars(model).get("forward") or MethodType(compat.original_class(model).forward, model)

    def forward(inputs: Sequence[torch.Tensor]) -> Any:
        args, kwargs = call.fill(inputs)
        return own(*args, **kwargs)

    return forward


def program_step(
    program: Program, call: Call, state: ModelState, *, seed: int = SEEDS[0], backward: bool = True
) -> Step:
    """The same step of a captured program, with its islands in place."""
    program = outlined(program)
    forward = around(stand_ins(program), _forward_of(program, call))
    return one_step(call, state, forward, seed=seed, backward=backward)


def _forward_of(program: Program, call: Call) -> Callable[[Sequence[torch.Tensor]], Any]:
    if program.signature.out_spec is None:
        return eager_forward(program.model, call)
    run, unflatten = compat.compiled_forward(program.graph_module), program.signature.unflatten
    return lambda inputs: unflatten(run(*inputs))


def compare(eager: Step, captured: Step) -> str | None:
    """The first difference in words, or None when the steps agree."""
    return next(_differences(eager, captured), None)


def _differences(eager: Step, captured: Step) -> Iterator[str]:
    if len(eager.outputs) != len(captured.outputs):
        yield f"it returned {len(captured.outputs)} values instead of {len(eager.outputs)}"
        return
    if eager.structure != captured.structure:
        yield "it returned another structure than eager"
    for index, (one, other) in enumerate(zip(eager.outputs, captured.outputs, strict=True)):
        if not _agree(one, other):
            yield f"output {index} differed from eager"
        if eager.differentiable[index] != captured.differentiable[index]:
            yield f"output {index} requires a gradient in one of the two only"
    if eager.failure != captured.failure:
        yield f"its backward raised {captured.failure or 'nothing'} where eager raised {eager.failure or 'nothing'}"
    for name, gradient in eager.gradients.items():
        if not _agree(gradient, captured.gradients[name]):
            yield f"the gradient of {name!r} differed from eager"
    for name, buffer in eager.buffers.items():
        if not _agree(buffer, captured.buffers[name]):
            yield f"the buffer {name!r} differed from eager"
    for index, (one, other) in enumerate(zip(eager.inputs, captured.inputs, strict=True)):
        if not _agree(one, other):
            yield f"it left other values in its input {index} than eager"
    if eager.changed != captured.changed:
        yield "it changed other attributes of the model than eager"
    if eager.random != captured.random:
        yield "it drew other random numbers than eager"


def one_step(
    call: Call,
    state: ModelState,
    forward: Callable[[Sequence[torch.Tensor]], Any],
    *,
    seed: int = SEEDS[0],
    backward: bool = True,
) -> Step:
    """One forward and backward on copies of the call's tensors; everything is put back afterwards.

    Args:
        call: the sample call.
        state: the model's state before; its parameters and buffers are looked at.
        forward: runs on the tensors of the call.
        seed: where all random streams start.
        backward: whether gradients are wanted.
    """
    streams = RandomStreams()
    streams.seed(seed)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            inputs = fresh(call.tensors)
            given = {f"input {index}": tensor for index, tensor in enumerate(inputs) if tensor.requires_grad}
            started = time.perf_counter()
            outputs, structure = take_apart(forward(inputs))
            random = RandomStreams()
            gradients, arrivals, failure = _gradients(outputs if backward else [], state.trainable, given)
            seconds = time.perf_counter() - started
        buffers = {name: buffer.detach().clone() for name, buffer in state.buffers()}
        differentiable = [isinstance(leaf, torch.Tensor) and leaf.requires_grad for leaf in outputs]
        # An output may be memory of the model's that is put back below.
        outputs = [leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in outputs]
    finally:
        streams.restore()
        changed = state.restore()
    return Step(
        structure=structure,
        outputs=outputs,
        differentiable=differentiable,
        inputs=[tensor.detach() for tensor in inputs],
        gradients=gradients,
        arrivals=arrivals,
        failure=failure,
        buffers=buffers,
        changed=changed,
        delta=state.undone,
        random=random,
        seconds=seconds,
    )


def _gradients(
    outputs: Sequence[Any], trainable: Mapping[str, nn.Parameter], given: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor | None], tuple[str, ...], str]:
    """Every gradient, the order of the parameters', and what backward raised if it did: no reason to stop here."""
    wanted: dict[str, torch.Tensor] = {**trainable, **given}
    nothing: dict[str, torch.Tensor | None] = dict.fromkeys(wanted)
    loss = _loss(outputs)
    if loss is None or not wanted:
        return nothing, (), ""
    seen: dict[str, None] = {}
    reentrant = _checkpoints_reentrantly(loss)
    if reentrant:
        wanted = dict(trainable)
    hooks = [parameter.register_hook(_noting(name, seen)) for name, parameter in trainable.items()]
    try:
        if reentrant:
            found = _through_grad(loss, list(trainable.values()))
        else:
            found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    except Exception as error:
        return nothing, (), type(error).__name__
    finally:
        for hook in hooks:
            hook.remove()
    return nothing | dict(zip(wanted, found, strict=True)), tuple(seen), ""


def _noting(name: str, seen: dict[str, None]) -> Callable[[torch.Tensor], None]:
    """A hook that notes when a gradient is there; the last time counts, since reentrant backwards add to it."""

    def note(gradient: torch.Tensor) -> None:
        seen.pop(name, None)
        seen[name] = None

    return note


def _loss(outputs: Sequence[Any]) -> torch.Tensor | None:
    """A scalar whose gradient no symmetry of the model cancels: a plain sum would, after a normalisation.

    A scalar, because ``backward`` with given output gradients imports sympy (over a second, torch 2.13).
    """
    total: torch.Tensor | None = None
    for leaf in outputs:
        if not isinstance(leaf, torch.Tensor) or not leaf.requires_grad:
            continue
        dense = leaf if leaf.layout == torch.strided else leaf.to_dense()
        ramp = torch.linspace(0.5, 1.5, max(dense.numel(), 1), device=dense.device)[: dense.numel()]
        term = (dense * ramp.to(dense.dtype).reshape(dense.shape)).sum()
        term = (term.real + term.imag) if term.is_complex() else term
        total = term.double().cpu() if total is None else total + term.double().cpu()
    return total


def _through_grad(loss: torch.Tensor, parameters: Sequence[nn.Parameter]) -> Sequence[torch.Tensor | None]:
    """By way of ``.grad``, which is put back: reentrant checkpointing accepts nothing else."""
    kept = [parameter.grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.grad = None
        with compat.without_accumulate_hooks(parameters):
            loss.backward()
        return [parameter.grad for parameter in parameters]
    finally:
        for parameter, gradient in zip(parameters, kept, strict=True):
            parameter.grad = gradient


def _checkpoints_reentrantly(loss: torch.Tensor) -> bool:
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        function = waiting.pop()
        if function is None or function in seen:
            continue
        if type(function).__name__ == "CheckpointFunctionBackward":
            return True
        seen.add(function)
        waiting += [source for source, _ in function.next_functions]
    return False


def _agree(one: Any, other: Any) -> bool:
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return type(one) is type(other) and (not isinstance(one, (bool, int, float, str)) or one == other)
    if one.shape != other.shape or one.dtype != other.dtype or one.layout != other.layout:
        return False
    if one.layout != torch.strided:
        one, other = one.to_dense(), other.to_dense()
    if one.device.type == "cpu" or not (one.is_floating_point() or one.is_complex()):
        return bool(torch.equal(one, other)) or _equal_but_for_nan(one, other)
    return torch.allclose(one, other, rtol=RELATIVE_TOLERANCE, atol=RELATIVE_TOLERANCE, equal_nan=True)


def _equal_but_for_nan(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(((one == other) | ((one != one) & (other != other))).all())
