"""Finds out, by running a program on parts of its example batch, how outputs are put together again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from autopar import compat
from autopar.capture.effects import NotRunError, without_effects
from autopar.capture.state import preserved
from autopar.errors import ModelError
from autopar.partitioner.plan import Combine
from autopar.passes.batch_statistics import batch_statistics
from autopar.passes.combining import Observed, choose_rule
from autopar.program import Program, Remark
from autopar.replica_ops import scatter

__all__ = ["Split", "probe", "shared_inputs"]

SEEDS = (20_231, 20_232)

Run = Callable[[Sequence[torch.Tensor]], list[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How a program's batch is cut and put together.

    Attributes:
        shared: indices of the inputs that every replica gets whole.
        combine: the rule for each output tensor.
        remarks: what could not be verified.
    """

    shared: tuple[int, ...]
    combine: tuple[Combine, ...]
    remarks: tuple[Remark, ...] = ()


def probe(program: Program, *, replicas: int, dim: int, run: Run) -> Split:
    """Compares the outputs of the whole example batch with those of its parts.

    Runs in eval mode with dropout off, without gradients; the model and the random streams are left
    as they were. The batch size is the size along ``dim`` of one of the inputs: each size that
    occurs is tried, in order of occurrence, and the first for which every output can be put
    together is it. Inputs of any other size are shared. A batch of one sample is doubled, because
    one sample does not tell a sum from a mean.

    An output with the batch in it is concatenated. Others are tried as the mean weighted by samples,
    as the sum, and as the same in every part, in this order: a value that is the same in every part
    is its own mean, too, and has the same gradient. Outputs that are random, or zero, cannot be
    told apart by value; the rule that comes nearest is taken, with a remark.

    Args:
        program: before it is replicated.
        replicas: parts to cut the example into.
        dim: dim of the batch.
        run: runs the program on its flat inputs and returns the flat outputs.

    Raises:
        ModelError: the model cannot run on a part of its batch, or an output mixes samples.
    """
    sizes = dict.fromkeys(tensor.size(dim) for tensor in program.example if tensor.dim() > dim)
    refusal: ModelError | None = None
    for size in sizes:
        try:
            return _probe_size(program, size, replicas=replicas, dim=dim, run=run)
        except ModelError as error:
            refusal = refusal or error
    if refusal is not None:
        raise refusal
    (leaves,) = _observe(program, run, [program.example])
    combine: list[Combine] = ["same" for leaf in leaves if isinstance(leaf, torch.Tensor)]
    remark = Remark(
        code="AP222",
        kind="missed",
        stage="replicate",
        message=f"No input has a dim {dim}, so there is no batch to split: one replica runs.",
        mend="Give the dim of the batch with the option dim.",
    )
    return Split(shared=tuple(range(len(program.example))), combine=tuple(combine), remarks=(remark,))


def shared_inputs(example: Sequence[torch.Tensor], *, size: int | None = None, dim: int) -> tuple[int, ...]:
    """Indices of the inputs that do not hold ``size`` samples along ``dim``.

    Args:
        example: the inputs.
        size: samples in the batch; None is that of the first input that has the dim.
        dim: dim of the batch.
    """
    if size is None:
        size = next((tensor.size(dim) for tensor in example if tensor.dim() > dim), 0)
    return tuple(i for i, tensor in enumerate(example) if tensor.dim() <= dim or tensor.size(dim) != size)


def _probe_size(program: Program, size: int, *, replicas: int, dim: int, run: Run) -> Split:
    shared = shared_inputs(program.example, size=size, dim=dim)
    example = list(program.example)
    if size == 1:
        example = [t if i in shared else _doubled(t, dim) for i, t in enumerate(example)]
    chunks = scatter(example, replicas=replicas, dim=dim, shared=shared)
    try:
        whole, again, *parts = _observe(program, run, [example, example, *chunks.inputs])
    except Exception as error:
        raise ModelError(
            f"{program.name} cannot run on a part of its batch (sizes {', '.join(map(str, chunks.sizes))}): "
            f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}",
            why="data_parallel gives every replica a part of the batch.",
            code="AP244",
            mend="Take the batch size from the input in forward (x.shape[0]), or use strategy 'ddp'.",
        ) from error
    if any(len(part) != len(whole) for part in parts):
        raise ModelError(
            f"{program.name} returns another structure for a part of its batch than for the whole.",
            mend="Return the same structure for every batch size, or use strategy 'ddp'.",
        )
    combine: list[Combine] = []
    remarks: list[Remark] = []
    for index, leaf in enumerate(whole):
        if isinstance(leaf, torch.Tensor):
            seen = Observed(
                name=f"Output {index}",
                whole=leaf,
                again=again[index],
                parts=tuple(part[index] for part in parts),
                sizes=chunks.sizes,
            )
            rule, remark = choose_rule(program.name, seen, dim)
            combine.append(rule)
            remarks += remark
        elif any(type(part[index]) is not type(leaf) or part[index] != leaf for part in parts):
            raise ModelError(
                f"Output {index} of {program.name} is a {type(leaf).__name__} that depends on the batch.",
                why="Only tensors can be put together again.",
                mend="Return it as a tensor, or leave it out of what forward returns.",
            )
    return Split(shared=shared, combine=tuple(combine), remarks=(*remarks, *_own_statistics(program)))


def _own_statistics(program: Program) -> list[Remark]:
    """What the probe does not see in eval mode: each replica normalises its part by itself in train mode."""
    found = batch_statistics(program.model)
    if not found:
        return []
    names = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
    remark = Remark(
        code="AP224",
        kind="analysis",
        stage="replicate",
        message=f"Each replica takes statistics of its own part of the batch in {names}; "
        "the running ones that last are replica 0's.",
        mend="Use a norm that sees one sample at a time, such as GroupNorm; strategy 'ddp' does so for each rank.",
    )
    return [remark]


def _doubled(tensor: torch.Tensor, dim: int) -> torch.Tensor:
    """One sample and another that differs from it where values are free to: indices must stay valid."""
    other = tensor / 2 if tensor.is_floating_point() else tensor
    return torch.cat([tensor, other], dim)


def _observe(program: Program, run: Run, batches: Sequence[Sequence[torch.Tensor]]) -> list[list[Any]]:
    """Flat outputs for each batch: in eval mode where that returns the same shapes as the present mode."""
    evaluated = _outputs(program, run, batches, evaluate=True)
    if not any(module.training for module in program.model.modules()):
        return evaluated
    now = _outputs(program, run, batches[:1], evaluate=False)
    if [_kind(leaf) for leaf in now[0]] == [_kind(leaf) for leaf in evaluated[0]]:
        return evaluated
    return _outputs(program, run, batches, evaluate=False)


def _kind(leaf: Any) -> Any:
    return tuple(leaf.shape) if isinstance(leaf, torch.Tensor) else type(leaf)


def _outputs(
    program: Program, run: Run, batches: Sequence[Sequence[torch.Tensor]], *, evaluate: bool
) -> list[list[Any]]:
    results = []
    for index, batch in enumerate(batches):
        with ExitStack() as stack:
            stack.enter_context(preserved(program.model, seed=SEEDS[index % len(SEEDS)]))
            stack.enter_context(torch.no_grad())
            stack.enter_context(without_effects())
            if evaluate:
                for module in program.model.modules():
                    module.training = False
                stack.enter_context(_DropoutOff())
            # A copy, so that a model that writes to its input does not spoil the other runs.
            try:
                leaves = compat.tree_flatten(run([tensor.detach().clone() for tensor in batch]))[0]
            except NotRunError as error:
                raise ModelError(
                    f"{program.name} cannot be run on parts of its sample batch, because {error}.",
                    mend="Move that out of forward, or use strategy 'ddp'.",
                ) from None
            results.append([leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves])
    return results


class _DropoutOff(TorchFunctionMode):
    """Turns functional dropout off: a captured graph has the flag of ``F.dropout(training=...)`` frozen."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _DROPOUTS:
            return args[0] if args else kwargs["input"]
        if "dropout_p" in kwargs:
            kwargs["dropout_p"] = 0.0
        return func(*args, **kwargs)


_DROPOUTS = frozenset({
    F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout,
    torch.dropout, torch.alpha_dropout, torch.feature_dropout, torch.feature_alpha_dropout,
})  # fmt: skip
