"""Makes n replicas of a program in one process, each with its part of the batch."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import fx, nn

from autopar import compat, replica_ops
from autopar.errors import ModelError, OptionError, PlanError
from autopar.partitioner.plan import Plan
from autopar.passes.base import PassContext, PassResult
from autopar.passes.dataflow import parameter_specs
from autopar.passes.preserving.lift_parameters import LiftParameters
from autopar.passes.probing import Split, probe, shared_inputs
from autopar.program import NodeInfo, Program, Remark, annotate
from autopar.replica_modules import WholeModel

__all__ = ["Replicate", "replica_devices"]

CPU_REPLICAS = 2


@dataclass(frozen=True, slots=True)
class Replicate:
    """Wraps the whole program into scatter, replicate, parallel_apply and gather.

    The program as it was becomes a module of the new graph, ``self.replica``, with its parameters
    as its first inputs; what is left at the top are four nodes that say how the batch is split,
    what is copied, and how each output is put together again (see ``autopar.passes.probing``).

    Args:
        replicas: how many; None decides by the model's device, see ``replica_devices``.
        devices: names of one device for each replica, with commas, such as ``"cuda:0,cuda:1"``.
        dim: dim of the batch, in inputs and outputs.
        gather: ``"exact"``, or ``"torch"`` to concatenate every output as torch.nn.DataParallel does.

    Raises:
        OptionError: a value is out of range.
    """

    replicas: int | None = None
    devices: str | None = None
    dim: int = 0
    gather: Literal["exact", "torch"] = "exact"
    name: ClassVar[str] = "replicate"
    requires: ClassVar[frozenset[str]] = frozenset({"captured"})
    provides: ClassVar[frozenset[str]] = frozenset({"plan", "replicated"})

    def __post_init__(self) -> None:
        if self.replicas is not None and self.replicas < 1:
            raise OptionError(f"The option replicas is {self.replicas}.", mend="It must be 1 or more.")
        if self.dim < 0:
            raise OptionError(f"The option dim is {self.dim}.", mend="It must be 0 or more.")
        if self.gather not in ("exact", "torch"):
            raise OptionError(f"The option gather is {self.gather!r}.", mend="It must be exact or torch.")

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Makes the replicated program and its plan.

        Raises:
            ModelError: the model is not on the first device, or cannot be split exactly.
            PlanError: the context's plan was made for another model.
        """
        wanted = self.replicas or (ctx.replicas if ctx.replicas > 1 else None)
        named = self.devices.split(",") if self.devices else None
        count, devices = replica_devices(program.model, replicas=wanted, devices=named)
        if devices is not None:
            _check_home(program.model, devices[0])
        specs = parameter_specs(program)
        if ctx.plan is not None:
            ctx.plan.check_parameters(specs)
            split = _planned_split(ctx.plan)
        else:
            split = self._split(program, count)
        plan = ctx.plan or Plan(
            strategy=ctx.strategy,
            pipeline=ctx.pipeline,
            model=program.name,
            parameters=tuple(specs),
            combine=split.combine,
            program=program.digest(),
            options={
                **ctx.options,
                "replicas": count,
                "devices": None if devices is None else list(devices),
                "dim": self.dim,
                "gather": self.gather,
                "shared": list(split.shared),
            },
        )
        if count == 1:
            alone = Remark(kind="passed", stage=self.name, message="There is one replica, so nothing is split.")
            return PassResult(dataclasses.replace(program, plan=plan), changed=False, remarks=(alone,))
        replicated = _replicated(program, ctx, split, count=count, devices=devices, dim=self.dim)
        rules = ", ".join(f"output {i} as {rule}" for i, rule in enumerate(split.combine)) or "no output"
        where = "on one device" if devices is None else f"on {', '.join(devices)}"
        done = Remark(
            kind="passed",
            stage=self.name,
            message=f"The batch is split over {count} replicas {where} and put together: {rules}.",
        )
        return PassResult(
            dataclasses.replace(replicated, plan=plan), changed=True, remarks=(done, *split.remarks)
        )

    def _split(self, program: Program, count: int) -> Split:
        run = _runner(program)
        if self.gather == "exact" and count > 1:
            return probe(program, replicas=count, dim=self.dim, run=run)
        shared = shared_inputs(program.example, dim=self.dim)
        return Split(shared=shared, combine=("concat",) * _output_count(program))


def replica_devices(
    model: nn.Module, *, replicas: int | None, devices: Sequence[str] | None
) -> tuple[int, tuple[str, ...] | None]:
    """How many replicas there are and where they run.

    Without a number and without devices: every CUDA device for a model that is on CUDA (one replica
    where there is only one), and 2 on the CPU, whatever its number of cores: the number decides
    what a batch norm sees, and a result should not depend on the machine.

    Returns:
        The number, and one device name for each; None when all run where the model is.
    """
    if devices is not None:
        return len(devices), tuple(devices) if len(set(devices)) > 1 else None
    home = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    if home.type != "cuda":
        return replicas or CPU_REPLICAS, None
    available = torch.cuda.device_count()
    count = replicas or available
    if count < 2 or available < 2:
        return count, None
    order = [home.index or 0, *(i for i in range(available) if i != (home.index or 0))]
    return count, tuple(f"cuda:{order[i % available]}" for i in range(count))


def _check_home(model: nn.Module, first: str) -> None:
    state = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in state:
        if str(tensor.device) != first:
            raise ModelError(
                f"The model must be on the first replica's device, {first}, but {name!r} is on {tensor.device}.",
                mend=f"Call model.to({first!r}) first, or begin devices with {tensor.device}.",
            )


def _planned_split(plan: Plan) -> Split:
    shared = plan.options.get("shared")
    if not isinstance(shared, Sequence):
        raise PlanError(
            f"The plan of strategy {plan.strategy!r} does not say which inputs are split.",
            mend="Give a plan that strategy 'data_parallel' made.",
        )
    return Split(shared=tuple(shared), combine=plan.combine)


def _output_count(program: Program) -> int:
    """Tensors that the program returns; known from the graph, except for an opaque root."""
    if program.signature.out_spec is not None:
        (output,) = program.find("output")
        return len(output.args[0])  # type: ignore[arg-type]
    return 0


def _whole(program: Program) -> WholeModel:
    return WholeModel(program.model, program.signature.in_spec, program.signature.constants)
