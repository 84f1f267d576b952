"""Reads a Program as data for the partitioner: a networkx DAG and a list of parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import networkx as nx
from torch import fx, nn

from autopar.capture.aliasing import base_of, operation_name, written_by
from autopar.partitioner.plan import ParameterSpec, Route
from autopar.program import Program, info

if TYPE_CHECKING:
    Dataflow = nx.DiGraph[str]

__all__ = ["attribute", "dataflow", "model_specs", "operation_parameters", "parameter_reads", "parameter_specs"]


def dataflow(program: Program) -> Dataflow:
    """The program as the partitioner's DAG (see ``autopar.partitioner.order``).

    Nodes are named ``"op:NAME"`` for operations, by the parameter's canonical name for trainable
    parameters, and ``"output"``. There is an edge wherever a gradient may flow: also from an
    operation that writes in place to what reads that memory later, and not into ``detach`` or what
    is known to hold no floating-point numbers (sizes, dtypes, indices).
    """
    dag: Dataflow = nx.DiGraph()
    canonical, reads = _canonical(program), parameter_reads(program)
    positions = {name: index for index, name in enumerate(canonical.values())}
    for name, position in positions.items():
        dag.add_node(name, kind="parameter", position=position)
    dag.add_node("output", kind="output")
    labels: dict[fx.Node, str] = {}
    writers: dict[fx.Node, str] = {}  # the last operation that wrote to the memory of a node
    for index, node in enumerate(program.graph.nodes):
        label = labels[node] = "output" if node.op == "output" else reads.get(node, f"op:{node.name}")
        if label.startswith("op:"):
            dag.add_node(label, kind="op", index=index)
        if not _cuts_gradients(node, known="shapes" in program.provides):
            for source in node.all_input_nodes:
                dag.add_edge(labels[source], label)
                writer = writers.get(base_of(source))
                if writer is not None:
                    dag.add_edge(writer, label)
            for inner in _inner_parameters(program, node, canonical):
                dag.add_edge(inner, label)
        for written in written_by(node):
            writers[base_of(written)] = label
    return dag


def parameter_reads(program: Program) -> dict[fx.Node, str]:
    """The ``get_attr`` nodes that read trainable parameters, with the parameter's canonical name."""
    canonical = _canonical(program)
    reads: dict[fx.Node, str] = {}
    for node in program.find("get_attr"):
        found = canonical.get(id(attribute(program.graph_module, str(node.target))))
        if found is not None:
            reads[node] = found
    return reads


def operation_parameters(program: Program) -> dict[fx.Node, list[str]]:
    """Every operation, in graph order, with the canonical names of the trainable parameters that it uses."""
    canonical, reads = _canonical(program), parameter_reads(program)
    return {
        node: [reads[source] for source in node.all_input_nodes if source in reads]
        + _inner_parameters(program, node, canonical)
        for node in program.graph.nodes
        if node.op in ("call_function", "call_method", "call_module")
    }


def parameter_specs(program: Program) -> list[ParameterSpec]:
    """Every trainable parameter of a program's model as the partitioner may know it.

    A parameter that an opaque region owns takes the hook route, also when the graph reads it too:
    its gradient is complete only after both.
    """
    canonical = _canonical(program)
    if program.front_end == "opaque":
        return model_specs(program.model, hooked=canonical.values())
    calls = program.find("call_module")
    return model_specs(
        program.model, hooked={name for node in calls for name in _inner_parameters(program, node, canonical)}
    )


def model_specs(model: nn.Module, *, hooked: Collection[str] = ()) -> list[ParameterSpec]:
    """Every trainable parameter of a model, in registration order, each once.

    Args:
        model: the owner.
        hooked: names of the parameters whose gradients only a hook can gather; those with sparse
            gradients are such in any case.
    """
    sparse = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.sparse
    }
    specs = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        route: Route = "hook" if name in hooked or id(parameter) in sparse else "graph"
        specs.append(
            ParameterSpec(
                name=name,
                shape=tuple(parameter.shape),
                dtype=str(parameter.dtype).removeprefix("torch."),
                device=parameter.device.type,
                itemsize=parameter.element_size(),
                layout="sparse" if id(parameter) in sparse else "strided",
                route=route,
            )
        )
    return specs


def attribute(root: nn.Module, target: str) -> Any:
    """What a name in a graph stands for: a tensor or a module of ``root``, itself where the name is empty."""
    owner, _, name = target.rpartition(".")
    return getattr(root.get_submodule(owner), name) if target else root


def _cuts_gradients(node: fx.Node, *, known: bool) -> bool:
    """Whether no gradient can flow through the node, for certain."""
    if node.op not in ("call_function", "call_method"):
        return False
    name = operation_name(node)
    if name == "detach" or (name == "getattr" and node.args[1] == "data"):
        return True
    # A node of unknown dtype and no bytes returns no tensor, unless it wrote to one.
    noted = info(node)
    if not known or written_by(node):
        return False
    if noted.dtype is None:
        return noted.nbytes == 0
    return not noted.dtype.startswith(("float", "bfloat", "complex"))


def _inner_parameters(program: Program, node: fx.Node, canonical: Mapping[int, str]) -> list[str]:
    if node.op != "call_module":
        return []
    owner = program.graph_module.get_submodule(str(node.target))
    names = [canonical.get(id(parameter)) for parameter in owner.parameters()]
    return [name for name in names if name is not None]


def _canonical(program: Program) -> dict[int, str]:
    return {id(parameter): name for name, parameter in program.trainable().items()}
