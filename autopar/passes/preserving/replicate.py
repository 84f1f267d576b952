"""Makes n replicas of a program in one process, each with its part of the batch."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import fx, nn

from autopar import compat, replica_ops
from autopar.capture.call import Call
from autopar.capture.opaque import wrap_opaque
from autopar.errors import ModelError, OptionError, PlanError
from autopar.partitioner.plan import Combine, Plan
from autopar.passes.base import PassContext, PassResult
from autopar.passes.dataflow import parameter_specs
from autopar.passes.preserving.lift_parameters import LiftParameters
from autopar.passes.probing import Run, Split, probe, shared_inputs
from autopar.program import NodeInfo, Program, Remark, annotate
from autopar.regions import outlined
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
        program, left_out = _without_islands(program)
        program, unsplittable = _for_any_size(program)
        unsplittable = (*unsplittable, *left_out)
        wanted = self.replicas or (ctx.replicas if ctx.replicas > 1 else None)
        named = self.devices.split(",") if self.devices else None
        count, devices = replica_devices(program.model, replicas=wanted, devices=named)
        if devices is not None:
            _check_home(program.model, devices[0])
        specs = parameter_specs(program)
        replica, names = _replica_of(program, ctx, count)
        state = {name: _attribute(program.model, name) for name in names}

        def run(inputs: Sequence[torch.Tensor]) -> list[Any]:
            return compat.tree_flatten(replica.forward(*state.values(), *inputs))[0]

        if ctx.plan is not None:
            ctx.plan.check_parameters(specs)
        # Another kind of call of one model may return other things, so a plan is adopted for its graph only.
        digest = program.digest()
        adopted = ctx.plan if ctx.plan is not None and ctx.plan.program == digest else None
        split = self._split(program, run, count) if adopted is None else _planned_split(adopted)
        plan = adopted or Plan(
            strategy=ctx.strategy,
            pipeline=ctx.pipeline,
            model=program.name,
            parameters=tuple(specs),
            combine=split.combine,
            program=digest,
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
            alone = Remark(
                code="AP221", kind="passed", stage=self.name, message="There is one replica, so nothing is split."
            )
            return PassResult(dataclasses.replace(program, plan=plan), changed=False, remarks=(*unsplittable, alone))
        replicated = _wrapped(program, replica, state, split, count=count, devices=devices, dim=self.dim)
        rules = ", ".join(f"output {i} as {rule}" for i, rule in enumerate(split.combine)) or "no output"
        where = "on one device" if devices is None else f"on {', '.join(devices)}"
        done = Remark(
            code="AP220",
            kind="passed",
            stage=self.name,
            message=f"The batch is split over {count} replicas {where} and put together: {rules}.",
        )
        return PassResult(
            dataclasses.replace(replicated, plan=plan), changed=True, remarks=(*unsplittable, done, *split.remarks)
        )

    def _split(self, program: Program, run: Run, count: int) -> Split:
        if self.gather == "exact" and count > 1:
            return probe(program, replicas=count, dim=self.dim, run=run)
        shared = shared_inputs(program.example, dim=self.dim)
        everything: list[Combine] = ["concat" for _ in range(_output_count(program))]
        return Split(shared=shared, combine=tuple(everything))


def _without_islands(program: Program) -> tuple[Program, tuple[Remark, ...]]:
    """A replica is made of copies of the modules, which the graphs of islands do not know."""
    if not program.islands:
        return program, ()
    message = f"Each replica runs its opaque calls without the {len(program.islands)} graphs inside of them."
    remark = Remark(code="AP225", kind="analysis", stage="replicate", message=message)
    return dataclasses.replace(program, islands={}), (remark,)


def _for_any_size(program: Program) -> tuple[Program, tuple[Remark, ...]]:
    """The program, or the whole model as one call where the graph is exact for the recorded sizes only."""
    if program.guards.none or program.signature.out_spec is None:
        return program, ()
    signature = program.signature
    call = Call(spec=signature.in_spec, tensors=program.example, constants=signature.constants, foreign=())
    reason = "its Python code looks at sizes or values of its inputs, which differ between the parts of a batch"
    whole = wrap_opaque(program.model, call, reason)
    for new, known in zip(whole.find("placeholder"), program.find("placeholder"), strict=True):
        new.meta = dict(known.meta)
    remarks = tuple(whole.remarks)
    return dataclasses.replace(whole, remarks=[*program.remarks], provides=program.provides), remarks


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
                f"The model must be on the first replica's device, {first}: {name!r} is on {tensor.device}.",
                mend=f"Call model.to({first!r}) first, or begin devices with {tensor.device}.",
            )


def _attribute(model: nn.Module, name: str) -> torch.Tensor:
    owner, _, attribute = name.rpartition(".")
    value = getattr(model.get_submodule(owner), attribute)
    assert isinstance(value, torch.Tensor)
    return value


def _planned_split(plan: Plan) -> Split:
    shared = plan.options.get("shared")
    if not isinstance(shared, Sequence):
        raise PlanError(
            f"The plan of strategy {plan.strategy!r} does not say which inputs are split.",
            mend="Give a plan that strategy 'data_parallel' made.",
        )
    return Split(shared=tuple(shared), combine=plan.combine)


def _output_count(program: Program) -> int:
    """Tensors that the program returns; 0 for an opaque root, where only a run could tell."""
    if program.signature.out_spec is None:
        return 0
    (output,) = program.find("output")
    return len(output.args[0])  # type: ignore[arg-type]


def _replica_of(program: Program, ctx: PassContext, count: int) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """What one replica runs: the program with its state as first inputs, and the names of that state."""
    lifted = outlined(LiftParameters().run(program.snapshot(), ctx).program)
    for node in lifted.graph.nodes:
        annotate(node, replica=count)
    if program.signature.out_spec is not None:
        lifted.graph_module.recompile()
        return lifted.graph_module, lifted.lifted
    (call,) = lifted.find("call_module")
    whole = program.graph_module.get_submodule(str(call.target))
    if not isinstance(whole, WholeModel):
        whole = WholeModel(program.model, program.signature.in_spec, program.signature.constants)
    return compat.graph_module({str(call.target): whole}, lifted.graph, program.name), ()


def _wrapped(
    program: Program,
    replica: fx.GraphModule,
    state: Mapping[str, torch.Tensor],
    split: Split,
    *,
    count: int,
    devices: Sequence[str] | None,
    dim: int,
) -> Program:
    """The program whose graph holds the four nodes and ``replica`` as a submodule."""
    graph, old = fx.Graph(), {node.name: node for node in program.find("placeholder")}
    of_state = dict(zip(state, replica.graph.find_nodes(op="placeholder"), strict=False))
    place: dict[str, Any] = {} if devices is None else {"devices": tuple(devices)}
    inputs = []
    for name in program.signature.inputs:
        inputs.append(graph.placeholder(name, type_expr=old[name].type))
        inputs[-1].meta = dict(old[name].meta)
    reads = []
    for name in state:
        reads.append(graph.get_attr(name))
        reads[-1].meta = dict(of_state[name].meta)

    def node(name: str, function: Any, *args: Any, **kwargs: Any) -> fx.Node:
        made = graph.create_node("call_function", function, args, kwargs, name=name)
        made.meta["autopar"] = NodeInfo(replica=count, created_by="replicate")
        return made

    shared = {"shared": split.shared} if split.shared else {}
    chunks = node("chunks", replica_ops.scatter, tuple(inputs), replicas=count, dim=dim, **shared, **place)
    weights = node("weights", replica_ops.replicate, tuple(reads), replicas=count, **place)
    target = _free_name(program.model)
    module = graph.get_attr(target)
    module.meta["autopar"] = NodeInfo(replica=count, created_by="replicate")
    outputs = node("outputs", replica_ops.parallel_apply, module, chunks, weights, **place)
    gathered = node("gathered", replica_ops.gather, outputs, chunks, combine=split.combine, dim=dim)
    if program.signature.out_spec is None:
        graph.output(gathered)
    else:
        graph.output(tuple(_outputs(program, graph, gathered, count)))
    graph_module = compat.graph_module({**state, target: replica}, graph, program.name)
    return dataclasses.replace(program, graph_module=graph_module, regions={})


def _outputs(program: Program, graph: fx.Graph, gathered: fx.Node, count: int) -> Iterator[fx.Node]:
    for index in range(_output_count(program)):
        output = graph.call_function(operator.getitem, (gathered, index))
        output.meta["autopar"] = NodeInfo(replica=count, created_by="replicate")
        yield output


def _free_name(model: nn.Module) -> str:
    """A name for the replica's module that no attribute of the model has."""
    name = "replica"
    while hasattr(model, name):
        name += "_"
    return name
