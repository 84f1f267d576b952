"""Runs programs of the ``data_parallel`` strategy: all replicas live in this process."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from autopar import compat
from autopar.passes.batch_statistics import batch_statistics
from autopar.passes.preserving.replicate import replica_devices
from autopar.replica_modules import WholeModel
from autopar.runtime.slots import StateSlots

if TYPE_CHECKING:
    from autopar.compilation import Compilation
    from autopar.partitioner.plan import Plan
    from autopar.program import Program
    from autopar.runtime.executor import Attempt, Runnable

__all__ = ["DataParallelExecutor"]


class DataParallelExecutor:
    """Executes replicated programs; there is no other rank to agree with.

    Args:
        model: the user's model.
        replicas, devices: as asked for; see ``autopar.passes.preserving.replicate.replica_devices``.
    """

    world_size = 1

    def __init__(self, model: nn.Module, *, replicas: int | None, devices: Sequence[str] | None) -> None:
        self.model = model
        self.synchronise = True  # there is nobody to synchronise with; no_sync() has nothing to put off
        self.replicas, _ = replica_devices(model, replicas=replicas, devices=devices)
        self._warned = False

    def agree(self, attempt: Attempt) -> Compilation:
        """The compilation to a plan of its own."""
        return attempt(None)

    def prepare(self, program: Program) -> Runnable:
        """A callable that fills in the model's state and runs the program."""
        if program.plan is not None:  # the model may have moved to other devices since the start
            self.replicas = int(program.plan.options.get("replicas", self.replicas))
            if program.plan.options.get("gather") == "exact":  # "torch" was asked to be like torch's
                self._warn_of_statistics()
        if program.signature.out_spec is None:
            return self._prepare_opaque(program)
        slots, signature = StateSlots(self.model, program.lifted), program.signature
        forward, read = compat.compiled_forward(program.graph_module), slots.read
        flatten, unflatten = signature.flatten, signature.unflatten
        return lambda args, kwargs: unflatten(forward(*read(), *flatten(args, kwargs)))

    def follow(self, plan: Plan, forward: Runnable) -> Runnable:
        """The function itself: the functions of ``autopar.replica_ops`` need no runtime."""
        return forward

    def eager(self, forward: Runnable) -> Runnable:
        """The user's own forward on the whole batch, whose result is the same."""
        return forward

    def traced(self) -> None:
        """Replicas are the runtime's doing."""

    def prepare_traced(self) -> None:
        """There is nothing to make ready."""

    def close(self) -> None:
        """Nothing was left on the model."""

    def _warn_of_statistics(self) -> None:
        found = batch_statistics(self.model) if self.replicas > 1 and not self._warned else []
        if found:
            self._warned = True
            warnings.warn(
                f"Each of the {self.replicas} replicas takes statistics of its own part of the batch in {found[0]}"
                f"{f' and {len(found) - 1} more' if len(found) > 1 else ''}, as with torch.nn.DataParallel on GPUs. "
                "Strategy 'ddp' does so for each rank; a GroupNorm sees one sample at a time.",
                stacklevel=2,
            )

    def _prepare_opaque(self, program: Program) -> Runnable:
        whole = next((m for m in program.graph_module.modules() if isinstance(m, WholeModel)), None)
        plain = WholeModel(self.model, None, {})
        forward, planned = compat.compiled_forward(program.graph_module), len(program.signature.inputs)

        def run(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            leaves, spec = compat.tree_flatten((args, kwargs))
            tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
            others = {i: leaf for i, leaf in enumerate(leaves) if not isinstance(leaf, torch.Tensor)}
            if whole is None or len(tensors) != planned:
                plain.bind(spec, others)
                return plain(*tensors)
            whole.bind(spec, others)
            return forward(*tensors)

        return run
