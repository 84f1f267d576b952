"""Reads a Program as data for the partitioner: a networkx DAG and a list of parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import networkx as nx
from torch import fx, nn

from autopar.partitioner.plan import ParameterSpec, Route
from autopar.program import Program

__all__ = ["dataflow", "model_specs", "parameter_reads", "parameter_specs"]


def dataflow(program: Program) -> nx.DiGraph:
    """The program as the partitioner's DAG (see ``autopar.partitioner.order``).

    Nodes are named ``"op:NAME"`` for operations, by the parameter's canonical name for trainable
    parameters, and ``"output"``. Only edges that a gradient can flow along matter, so integer
    tensors and frozen parameters are ordinary operations.
    """
    dag = nx.DiGraph()
    canonical, reads = _canonical(program), parameter_reads(program)
    positions = {name: index for index, name in enumerate(canonical.values())}
    dag.add_node("output", kind="output")
    labels: dict[fx.Node, str] = {}
    for index, node in enumerate(program.graph.nodes):
        if node.op == "output":
            label = "output"
        else:
            parameter = reads.get(node)
            label = f"op:{node.name}" if parameter is None else parameter
            if parameter is None:
                dag.add_node(label, kind="op", index=index)
            else:
                dag.add_node(label, kind="parameter", position=positions[parameter])
        labels[node] = label
        for source in node.all_input_nodes:
            dag.add_edge(labels[source], label)
        for inner in _inner_parameters(program, node, canonical):
            dag.add_node(inner, kind="parameter", position=positions[inner])
            dag.add_edge(inner, label)
    for name, position in positions.items():  # what the graph never reads
        dag.add_node(name, kind="parameter", position=position)
    return dag


def parameter_reads(program: Program) -> dict[fx.Node, str]:
    """The ``get_attr`` nodes that read trainable parameters, with the parameter's canonical name."""
    canonical = _canonical(program)
    reads: dict[fx.Node, str] = {}
    for node in program.find("get_attr"):
        owner, _, name = str(node.target).rpartition(".")
        found = canonical.get(id(getattr(program.graph_module.get_submodule(owner), name)))
        if found is not None:
            reads[node] = found
    return reads


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


def _inner_parameters(program: Program, node: fx.Node, canonical: Mapping[int, str]) -> list[str]:
    if node.op != "call_module":
        return []
    owner = program.graph_module.get_submodule(str(node.target))
    names = [canonical.get(id(parameter)) for parameter in owner.parameters()]
    return [name for name in names if name is not None]


def _canonical(program: Program) -> dict[int, str]:
    return {id(parameter): name for name, parameter in program.trainable().items()}
