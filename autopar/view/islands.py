"""Describes the islands of a program as nodes that run inside of their opaque call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import fx

    from autopar.program import Program

__all__ = ["island_graphs"]

Graph = dict[str, Any]


def island_graphs(
    program: Program, call: fx.Node, describe: Callable[[Program], Graph], node: Graph
) -> Iterator[Graph]:
    """The graphs of the islands that one opaque call has, as parts of the graph around it.

    Names begin with that of the call and the island's path; module paths and targets are as seen
    from the root of ``program``. What flows between islands is up to Python, so every island stands
    between the inputs of the call and the call.

    Args:
        program: holds the islands.
        call: the opaque call.
        describe: gives nodes and edges of a program.
        node: the description of the call, which keeps what is its own alone: FLOPs that no island
            counts, and bytes of the parameters that eager code owns.
    """
    from autopar.islands import eager_parameters
    from autopar.program import info

    path = info(call).module_path
    inside = {key: one for key, one in program.islands.items() if not path or f"{key}.".startswith(f"{path}.")}
    if not inside:
        return
    covered = {parameter for one in inside.values() for parameter in one.program.model.parameters()}
    owned = (set(program.model.get_submodule(path).parameters()) & eager_parameters(program)) - covered
    node["param_bytes"] = sum(parameter.numel() * parameter.element_size() for parameter in owned)
    planned = program.plan.buckets if program.plan is not None else ()
    buckets = {name: bucket.index for bucket in planned for name in bucket.parameters}
    for key, island in inside.items():
        graph = describe(island.program)
        node["flops"] = max(0, node["flops"] - sum(one["flops"] for one in graph["nodes"]))
        prefix = f"{call.name}.{key}."
        for one in graph["nodes"]:
            _seen_from_outside(one, key, prefix, call.name, buckets)
        edges = [[prefix + source, prefix + target] for source, target in graph["edges"]]
        for one in graph["nodes"]:
            if one["op"] == "placeholder":
                edges += [[source.name, one["name"]] for source in call.all_input_nodes]
            elif one["op"] == "output":
                edges.append([one["name"], call.name])
        yield {"nodes": graph["nodes"], "edges": edges}


def _seen_from_outside(one: Graph, path: str, prefix: str, call: str, buckets: dict[str, int]) -> None:
    one["inside"] = prefix + one["inside"] if one["inside"] else call
    one["name"] = prefix + one["name"]
    one["module"] = f"{path}.{one['module']}" if one["module"] else path
    if one["op"] in ("call_module", "get_attr"):
        one["target"] = f"self.{path}.{one['target'].removeprefix('self.')}"
        name = one["target"].removeprefix("self.")
        one["bucket"] = buckets.get(name, one["bucket"])
