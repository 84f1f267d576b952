"""The nodes of a replicated program: scatter, replicate, parallel_apply and gather.

Ordinary functions, differentiable end to end: autograd sums what the replicas send back, so the
user's parameters get the gradient of the whole batch without any hook.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from autopar import compat
from autopar.errors import ModelError
from autopar.partitioner.plan import Combine
from autopar.replica_modules import replica_forwards, run_replicas

__all__ = ["Chunks", "gather", "parallel_apply", "replicate", "scatter"]


_DEFAULT: Combine = "concat"


class Chunks(NamedTuple):
    """The parts of a batch.

    Attributes:
        inputs: for each replica, its tensors.
        sizes: for each replica, the number of samples that it got.
    """

    inputs: tuple[tuple[torch.Tensor, ...], ...]
    sizes: tuple[int, ...]


def scatter(
    inputs: Sequence[torch.Tensor],
    *,
    replicas: int,
    dim: int = 0,
    shared: Sequence[int] = (),
    devices: Sequence[str] | None = None,
) -> Chunks:
    """Cuts a batch into parts of equal size, as ``torch.chunk`` does: the last may be smaller.

    A batch of fewer samples than replicas gives fewer parts, and an empty one a single part.

    Args:
        inputs: tensors with the batch at ``dim``. A tensor of size 1 there goes to every replica
            when the batch is larger: it broadcasts in the plain module, too.
        replicas: number of parts at most.
        dim: dim of the batch.
        shared: indices of the inputs that go to every replica whole, such as tables and scalars.
        devices: where each part goes; None leaves them where they are.

    Raises:
        ModelError: two inputs hold different numbers of samples.

    Example:
        >>> scatter((torch.arange(5),), replicas=2).inputs
        ((tensor([0, 1, 2]),), (tensor([3, 4]),))
    """
    counts = {i: tensor.size(dim) for i, tensor in enumerate(inputs) if i not in shared}
    total = next((count for count in counts.values() if count != 1), 1)
    for index, count in counts.items():
        if count not in (1, total):
            raise ModelError(
                f"Input {index} has {count} samples along dim {dim} where the batch has {total}.",
                why="It was split in the call that the program was captured with.",
                mend="Give all inputs as many samples, or call parallelize with this call as the example.",
            )
    split = {index for index, count in counts.items() if count == total}
    part = max(-(-total // replicas), 1)
    starts = range(0, total, part) if split and total else range(1)
    sizes = tuple(min(part, total - start) for start in starts)
    parts = tuple(
        tuple(tensor.narrow(dim, start, size) if i in split else tensor for i, tensor in enumerate(inputs))
        for start, size in zip(starts, sizes, strict=True)
    )
    if devices is not None:
        parts = tuple(tuple(_to(t, device) for t in one) for one, device in zip(parts, devices, strict=False))
    return Chunks(parts, sizes)


def replicate(
    tensors: Sequence[torch.Tensor], *, replicas: int, devices: Sequence[str] | None = None
) -> list[tuple[torch.Tensor, ...]]:
    """Parameters and buffers for each replica; gradients flow back to ``tensors`` and sum up there.

    Args:
        tensors: the user's own.
        replicas: number of replicas.
        devices: where each replica runs. None shares the tensors themselves: on one device a copy
            would only cost memory, and autograd sums over all uses of a tensor by itself.
    """
    if devices is None:
        return [tuple(tensors)] * replicas
    return [tuple(_to(tensor, device) for tensor in tensors) for device in devices]


def parallel_apply(
    replica: nn.Module,
    chunks: Chunks,
    weights: Sequence[Sequence[torch.Tensor]],
    *,
    devices: Sequence[str] | None = None,
) -> list[Any]:
    """Runs one replica for each part of the batch.

    Replica 0 runs with the user's own modules, so it is its buffers (batch norm statistics) that
    last; the other replicas run with copies of the modules that hold state.

    Args:
        replica: a module whose first inputs are the weights and the others a part of the batch.
        chunks: from ``scatter``.
        weights: from ``replicate``, for at least as many replicas as there are parts.
        devices: where each replica runs; None where the tensors are.

    Returns:
        What each replica returned, in the order of the parts.

    Raises:
        Exception: of the class that a replica raised, with its traceback in the message.
    """
    count = len(chunks.inputs)
    forwards = replica_forwards(replica, count, devices)
    calls = [(*weights[i], *chunks.inputs[i]) for i in range(count)]
    return run_replicas(forwards, calls, devices)


def gather(outputs: Sequence[Any], chunks: Chunks, *, combine: Sequence[Combine], dim: int = 0) -> Any:
    """Puts the replicas' outputs together, on the device of the first one's.

    Args:
        outputs: from ``parallel_apply``: one structure for each replica, all alike.
        chunks: from ``scatter``; means are weighted by its sizes.
        combine: the rule for each tensor of the structure: ``"concat"`` along ``dim``, ``"mean"``
            weighted by samples, ``"sum"``, or ``"same"`` (replica 0's). Scalars that are to be
            concatenated become a vector with one element for each replica, with a warning. Without
            any rule every tensor is concatenated.
        dim: dim of the batch.

    Raises:
        ModelError: the replicas returned different structures, or not as many tensors as planned.
    """
    flat = [compat.tree_flatten(output) for output in outputs]
    first, spec = flat[0]
    if any(other != spec for _, other in flat[1:]):
        raise ModelError(
            "The replicas returned different structures, which cannot be put together.",
            why=f"Replica 0 returned {spec}.",
            mend="Let forward return the same structure for every part of the batch.",
        )
    rules = iter(combine or [_DEFAULT for leaf in first if isinstance(leaf, torch.Tensor)])
    gathered: list[Any] = []
    for index, leaf in enumerate(first):
        leaves = [leaves[index] for leaves, _ in flat]
        if not isinstance(leaf, torch.Tensor):
            gathered.append(_common(index, leaves))
            continue
        rule = next(rules, None)
        if rule is None:
            raise _other_count(len(combine), first)
        gathered.append(_combined(rule, leaves, chunks.sizes, dim))
    if next(rules, None) is not None:
        raise _other_count(len(combine), first)
    return compat.tree_unflatten(gathered, spec)


def _combined(rule: Combine, leaves: Sequence[torch.Tensor], sizes: Sequence[int], dim: int) -> torch.Tensor:
    target = leaves[0].device
    leaves = [leaf if leaf.device == target else leaf.to(target) for leaf in leaves]
    if rule == "concat" and leaves[0].dim() == 0:
        warnings.warn(
            "A scalar output of the replicas was gathered into a vector with one element for each replica.",
            stacklevel=3,
        )
        return torch.stack(tuple(leaves))
    if rule == "same" or len(leaves) == 1:
        return leaves[0]
    if rule == "concat":
        return torch.cat(tuple(leaves), dim)
    if rule == "sum":
        return sum(leaves[1:], leaves[0])
    total = sum(sizes)
    return sum(
        (leaf * (n / total) for leaf, n in zip(leaves[1:], sizes[1:], strict=True)),
        leaves[0] * (sizes[0] / total),
    )


def _common(index: int, leaves: Sequence[Any]) -> Any:
    if any(type(leaf) is not type(leaves[0]) or leaf != leaves[0] for leaf in leaves[1:]):
        raise ModelError(
            f"Output {index} is a {type(leaves[0]).__name__} that differs between the replicas.",
            why="Only tensors can be put together.",
            mend="Return it as a tensor, or leave it out of what forward returns.",
        )
    return leaves[0]


def _other_count(planned: int, leaves: Sequence[Any]) -> ModelError:
    count = sum(isinstance(leaf, torch.Tensor) for leaf in leaves)
    return ModelError(
        f"The model returned {count} tensors where the plan has {planned}.",
        why="The plan was made for another structure of outputs.",
        mend="Call parallelize again in the mode (train or eval) in which the model runs.",
    )


def _to(tensor: torch.Tensor, device: str) -> torch.Tensor:
    # A copy from a GPU to the host is not awaited with non_blocking, so the host could read too early.
    return tensor.to(device, non_blocking=not device.startswith("cpu"))
