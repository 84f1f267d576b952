"""Describes a Program's graph as plain JSON values: one dictionary a node, one pair of names an edge."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopar.view.islands import island_graphs

if TYPE_CHECKING:
    from torch import fx

    from autopar.program import Program, SourceLine

__all__ = ["fill_in", "graph_of", "source_text"]

_LONGEST_CODE = 240  # characters of a node's line; an operation on a hundred tensors has thousands


def graph_of(program: Program) -> dict[str, Any]:
    """Nodes and edges of a program, in the order in which it runs them."""
    code = _statements(program.code)
    nodes: list[dict[str, Any]] = []
    edges: list[list[str]] = []
    for node in program.graph.nodes:
        described = _node(node, program.graph_module, code)
        if described["opaque"] and program.islands:
            for island in island_graphs(program, node, graph_of, described):
                nodes += island["nodes"]
                edges += island["edges"]
        nodes.append(described)
        edges += [[source.name, node.name] for source in node.all_input_nodes]
        inner = getattr(program.graph_module, str(node.target), None) if node.op == "get_attr" else None
        if isinstance(getattr(inner, "graph", None), type(program.graph)):
            _nest(node, inner, len(program.signature.inputs), nodes, edges)
    return {"nodes": nodes, "edges": edges}


def _nest(read: fx.Node, inner: Any, inputs: int, nodes: list[dict[str, Any]], edges: list[list[str]]) -> None:
    """Adds what each replica runs: a graph that the program holds as a module and one node calls.

    That node has the module, the split batch and the copied state as arguments; the inner graph
    takes the state first.
    """
    (user,) = read.users
    data, *state = [node for node in user.all_input_nodes if node is not read]
    names = {node: f"{read.name}.{node.name}" for node in inner.graph.nodes}
    code = _statements(str(inner.graph.python_code("self").src))
    nodes += [{**_node(node, inner, code), "name": name} for node, name in names.items()]
    edges += [[names[source], name] for node, name in names.items() for source in node.all_input_nodes]
    arguments = list(inner.graph.find_nodes(op="placeholder"))
    for index, argument in enumerate(arguments):
        source = data if index >= len(arguments) - inputs or not state else state[0]
        edges.append([source.name, names[argument]])
    edges.append([names[next(iter(reversed(inner.graph.nodes)))], user.name])


def _node(node: fx.Node, root: fx.GraphModule, code: dict[str, str]) -> dict[str, Any]:
    from autopar.program import info

    known = info(node)
    owner = root.get_submodule(str(node.target)) if node.op == "call_module" else None
    owned = sum(p.numel() * p.element_size() for p in owner.parameters() if p.requires_grad) if owner else 0
    return {
        "name": node.name,
        "op": node.op,
        "target": _target(node),
        "class": type(owner).__name__ if owner is not None else None,
        "module": known.module_path,
        # What flows in and out is nobody's line: the innermost one on the stack is that of the caller.
        "source": None if node.op in ("placeholder", "output") else source_text(known.source),
        "shape": None if known.shape is None else list(known.shape),
        "dtype": known.dtype,
        "device": known.device,
        "bytes": known.nbytes,
        "param_bytes": known.param_bytes or owned,
        "flops": known.flops,
        "bucket": known.bucket,
        "replica": known.replica,
        "opaque": known.opaque,
        "region": known.region or None,
        "inside": None,
        "created_by": known.created_by,
        "code": code.get(node.name),
    }


_STATEMENT = re.compile(r"\s+(\w+)(?:\s*:[^=]+)? = .*?(?=;  \w+ = |$)")


def _statements(code: str) -> dict[str, str]:
    """The line of each node in the code that fx prints, without what frees values after it.

    >>> _statements("def forward(self, x):\\n    a = x + 1;  x = None\\n    return (a,)")
    {'a': 'a = x + 1'}
    """
    found = {}
    for line in code.splitlines():
        match = _STATEMENT.match(line)
        if match:
            text = match.group().strip()
            found[match.group(1)] = text if len(text) <= _LONGEST_CODE else f"{text[: _LONGEST_CODE - 1]}…"
    return found


def _target(node: fx.Node) -> str:
    if node.op == "call_method":
        return f".{node.target}"
    if node.op in ("call_module", "get_attr"):
        return f"self.{node.target}"
    if not callable(node.target):
        return str(node.target)
    name = getattr(node.target, "__name__", type(node.target).__name__)
    module = getattr(node.target, "__module__", None) or "torch"  # torch's builtins say None
    if module.startswith(("torch.nn.functional", "torch._C._nn")):
        return f"F.{name}"
    if module.startswith("torch._C"):
        return f"torch.{name}"
    short = {"_operator": "operator", "builtins": ""}.get(module, module.rpartition(".")[2])
    return f"{short}.{name}".lstrip(".")


def source_text(line: SourceLine | None) -> str | None:
    """A place in the user's source as ``file:line``, relative to the working folder where it lies below."""
    if line is None:
        return None
    path = Path(line.file)  # relative where it can be: the document travels to other machines
    here = Path.cwd()
    return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{line.line}"


_LATE = ("shape", "dtype", "device", "bytes", "flops")


def fill_in(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    """Gives captured nodes what the pass ``shapes`` found out later about the same operations."""
    same = {(node["name"], node["target"]): node for node in after}
    inside: dict[str, list[dict[str, Any]]] = {}
    for node in after:
        if node["op"] not in ("get_attr", "placeholder"):
            inside.setdefault(node["module"], []).append(node)
    calls = Counter(node["target"] for node in before if node["op"] == "call_module")
    for node in before:
        later = same.get((node["name"], node["target"]))
        if later is not None:
            node.update({key: later[key] for key in _LATE})
        elif node["op"] == "call_module" and calls[node["target"]] == 1 and node["module"] in inside:
            opened = inside[node["module"]]  # the last of a module's operations makes its result
            node.update({key: opened[-1][key] for key in _LATE})
            node["flops"] = sum(one["flops"] for one in opened)
