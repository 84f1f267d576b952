"""The Program: autopar's intermediate representation, shared by every part of the compiler.

A Program is a plain ``torch.fx.GraphModule`` plus what fx has no place for: how the user's
arguments map to its inputs, what is known of each node, and a remark for everything that was done
or could not be done. State stays in the user's module; the graph holds names.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import fx, nn

from autopar import compat
from autopar.guards import Guards
from autopar.partitioner.plan import Plan
from autopar.structure import Structure

if TYPE_CHECKING:
    from autopar.islands import Island

__all__ = ["FrontEnd", "NodeInfo", "Program", "Region", "Remark", "Signature", "SourceLine", "annotate", "info"]

FrontEnd: TypeAlias = Literal["symbolic", "export", "dynamo", "opaque"]

_KEY = "autopar"


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line of the user's source: where an operation comes from."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """What is known of one node.

    Attributes:
        module_path: dotted path of the module that the operation belongs to; ``""`` is the root.
        source: the line of the user's that called it.
        shape: sizes of the output tensor; None for anything but one tensor.
        dtype: its dtype, such as ``"float32"``.
        device: its device type.
        nbytes: bytes of all tensors that the node outputs.
        param_bytes: bytes of the trainable parameters that the node reads or owns.
        flops: floating-point operations of one forward, as ``torch.utils.flop_counter`` counts.
        bucket: index of the gradient bucket, for synchronisation nodes and parameter reads.
        replica: number of replicas the node runs in; None where the program is not replicated.
        opaque: whether the node runs eager code that the compiler does not see into.
        region: the region that the node is part of, see ``Program.regions``; ``""`` for none.
        created_by: the pass that made the node, or ``"capture"``.
    """

    module_path: str = ""
    source: SourceLine | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    device: str | None = None
    nbytes: int = 0
    param_bytes: int = 0
    flops: int = 0
    bucket: int | None = None
    replica: int | None = None
    opaque: bool = False
    region: str = ""
    created_by: str = "capture"


@dataclass(frozen=True, slots=True)
class Region:
    """Operations whose results backward computes again: activation checkpointing (Chen et al., 2016).

    Attributes:
        settings: of ``torch.utils.checkpoint.checkpoint``.
        module_path: the module that made the checkpoint.
        source: the line where it did.
    """

    settings: Mapping[str, Any]
    module_path: str = ""
    source: SourceLine | None = None


_FIELDS = tuple(field.name for field in dataclasses.fields(NodeInfo))


def info(node: fx.Node) -> NodeInfo:
    """The node's annotations; defaults where nothing was recorded yet."""
    found = node.meta.get(_KEY)
    return found if isinstance(found, NodeInfo) else NodeInfo()


def annotate(node: fx.Node, **changes: Any) -> fx.Node:
    """Replaces fields of the node's annotations and returns the node."""
    known = info(node)
    # As dataclasses.replace does, in half its time: a program of 1,000 operations is annotated 5,000 times.
    node.meta[_KEY] = NodeInfo(**{name: getattr(known, name) for name in _FIELDS} | changes)
    return node


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Something the compiler did, could not do, or found out.

    Attributes:
        kind: ``"passed"`` for something done, ``"missed"`` for something that could not be done,
            ``"analysis"`` for something found out.
        stage: the pass or part that says so.
        message: one sentence.
        module_path, source: where.
        mend: what the user can change, for missed remarks.
        nbytes: bytes of parameters concerned.
        code: of the page that ``autopar explain`` prints of it, see ``autopar.codes``; ``""`` for none.
    """

    kind: Literal["passed", "missed", "analysis"]
    stage: str
    message: str
    module_path: str = ""
    source: SourceLine | None = None
    mend: str = ""
    nbytes: int = 0
    code: str = ""


@dataclass(frozen=True, slots=True)
class Signature:
    """How the user's call maps to the graph's inputs, and its outputs to the user's.

    Attributes:
        in_spec: pytree structure of ``(args, kwargs)``.
        constants: leaf index to value, for the leaves that are no tensors: the graph is exact for
            these values only.
        inputs: names of the placeholders, one for each tensor leaf, in leaf order.
        out_spec: structure of the result; None for an opaque root, which returns the result.
        out_constants: output leaf index to value, for the output leaves that are no tensors.
    """

    in_spec: Any
    constants: Mapping[int, Any]
    inputs: tuple[str, ...]
    out_spec: Structure | None
    out_constants: Mapping[int, Any] = field(default_factory=dict)

    def flatten(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """The tensor leaves of a call, in the order of ``inputs``."""
        leaves, _ = compat.tree_flatten((tuple(args), dict(kwargs)))
        return [leaf for index, leaf in enumerate(leaves) if index not in self.constants]

    @property
    def complete(self) -> bool:
        """Whether inputs and constants are all that a call consists of: no argument is another object."""
        leaves: int = self.in_spec.num_leaves
        return leaves == len(self.inputs) + len(self.constants)

    def call(self, leaves: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """``(args, kwargs)`` of the user's call, from the graph's flat inputs: ``flatten`` undone."""
        assert self.complete, "the call has arguments that the signature does not keep"
        args, kwargs = compat.tree_unflatten(_filled(leaves, self.constants), self.in_spec)
        return args, kwargs

    def unflatten(self, leaves: Sequence[Any]) -> Any:
        """The user's output structure, from the graph's flat outputs."""
        assert self.out_spec is not None, "an opaque root returns its result as it is"
        return self.out_spec.unflatten(_filled(leaves, self.out_constants))


def _filled(leaves: Sequence[Any], constants: Mapping[int, Any]) -> Sequence[Any]:
    """All leaves, from those that flow and those that are constant."""
    if not constants:
        return leaves
    flowing = iter(leaves)
    total = len(leaves) + len(constants)
    return [constants[index] if index in constants else next(flowing) for index in range(total)]


@dataclass(slots=True, kw_only=True)
class Program:
    """One captured forward of a model, and what became of it.

    Attributes:
        graph_module: the graph; its placeholders are the tensor leaves of the call and its output
            is a tuple of the tensor leaves of the result.
        model: the user's module, owner of all state; never changed by a pass.
        signature: how calls and results map to the graph.
        front_end: the rung of the capture ladder that made it.
        example: tensor leaves of the inputs it was captured with.
        mode_dependent: paths of the modules whose train/eval flag the graph has frozen, with the flag.
        attributes: module path and name of the plain attributes (numbers, strings, tuples) whose values
            the graph has baked in, with the value.
        settle: changes the model's attributes as its first forward does, such as filling in what was
            None; the graph is that of later forwards. None where a first forward changes nothing.
        guards: on which sizes and values of its inputs the graph rests.
        regions: by name; which nodes they hold is in the annotations of these (``NodeInfo.region``).
        islands: by path, the submodules of opaque calls that run as graphs of their own.
        arrivals: trainable parameters in the order in which one eager backward completed their
            gradients; empty where none was run.
        seconds: what one forward and backward of it took when it was compared with eager; 0 where it was not.
        remarks: in the order in which they were made.
        provides: facts established by passes so far, such as ``"shapes"``.
        ready_order: trainable parameters in the order in which their gradients become ready.
        plan: decided by the partitioner; None before.
        lifted: names of the state (parameters and buffers) that became the first inputs.
    """

    graph_module: fx.GraphModule
    model: nn.Module
    signature: Signature
    front_end: FrontEnd
    example: tuple[torch.Tensor, ...]
    mode_dependent: Mapping[str, bool] = field(default_factory=dict)
    attributes: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    settle: Callable[[], None] | None = None
    guards: Guards = field(default_factory=Guards)
    regions: Mapping[str, Region] = field(default_factory=dict)
    islands: Mapping[str, Island] = field(default_factory=dict)
    arrivals: tuple[str, ...] = ()
    seconds: float = 0.0
    remarks: list[Remark] = field(default_factory=list)
    provides: frozenset[str] = frozenset({"captured"})
    ready_order: tuple[str, ...] = ()
    plan: Plan | None = None
    lifted: tuple[str, ...] = ()

    @property
    def graph(self) -> fx.Graph:
        """The fx graph."""
        return self.graph_module.graph

    @property
    def code(self) -> str:
        """The graph as Python source, as fx prints it; always that of the graph as it is now."""
        return str(self.graph.python_code("self").src)

    @property
    def name(self) -> str:
        """Class name of the user's model."""
        return compat.original_class(self.model).__name__

    def find(self, op: str, target: Any = None) -> Iterator[fx.Node]:
        """Nodes of one opcode, and of one target when given, in graph order."""
        for node in self.graph.nodes:
            if node.op == op and (target is None or node.target == target):
                yield node

    def trainable(self) -> dict[str, nn.Parameter]:
        """The model's trainable parameters under their canonical names, each once."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def opaque_modules(self) -> dict[str, nn.Module]:
        """Modules that the graph calls whole, by path (the root's path is ``""``)."""
        return {
            info(node).module_path: self.graph_module.get_submodule(str(node.target))
            for node in self.find("call_module")
        }

    def digest(self) -> str:
        """SHA-256 (hex) of the graph's code and questions: equal on all ranks when they captured the same."""
        asked = f"{self.guards.questions.code}{self.guards.answers}" if self.guards.questions is not None else ""
        return hashlib.sha256(f"{self.code}{asked}".encode()).hexdigest()

    def snapshot(self) -> Program:
        """A copy whose graph can be changed without changing this one's; state is shared."""
        graph = fx.Graph()
        copied: dict[fx.Node, fx.Node] = {}
        value = graph.graph_copy(self.graph, copied)
        for old in self.find("output"):
            graph.output(value, type_expr=old.type).meta = dict(old.meta)
        module = compat.graph_module(self.graph_module, graph, type(self.graph_module).__name__)
        copy = dataclasses.replace(self, graph_module=module, remarks=list(self.remarks))
        return copy.with_islands(Program.snapshot) if self.islands else copy

    def with_islands(self, change: Callable[[Program], Program]) -> Program:
        """The same program, with each of its islands changed."""
        changed = {
            path: dataclasses.replace(island, program=change(island.program)) for path, island in self.islands.items()
        }
        return dataclasses.replace(self, islands=changed)

    def _repr_html_(self) -> str:
        """What a notebook shows: called by it, never by the compiler, which knows no pictures."""
        from autopar.view.notebook import program_html

        return program_html(self)

    def __str__(self) -> str:
        return f"# {self.name}, captured by the {self.front_end} front end\n{self.code.strip()}\n"
