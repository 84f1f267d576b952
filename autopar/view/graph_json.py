"""The graph document, ``graph.json``: everything that a picture or a table needs, as plain JSON.

Version 1::

    {
      "format": "autopar-graph", "version": 1, "autopar": "0.1.0",
      "model": "MyModel",              class name of the user's model
      "strategy": "ddp",
      "front_end": "symbolic",         rung of the capture ladder
      "world_size": 4,                 ranks, or null where nobody said
      "plan": {...},                   as in plan.json; null when the pipeline stopped before it
      "before": {"nodes": [...], "edges": [[source, target], ...]},    as captured
      "after":  {"nodes": [...], "edges": [...]},                      as transformed
      "remarks": [{"kind", "stage", "message", "module", "source", "mend", "bytes"}, ...],
      "passes":  [{"name", "seconds", "changed", "nodes_before", "nodes_after"}, ...]
    }

A node, in the order in which the graph runs them::

    {
      "name": "conv2d",                unique in its graph; edges refer to it
      "op": "call_function",           placeholder, get_attr, call_function, call_method, call_module, output
      "target": "F.conv2d",            readable: "F.linear", ".view", "self.conv1", "ops.sync_gradients"
      "class": null,                   class name of the module that a call_module calls
      "module": "features.conv1",      dotted path; "" is the root
      "source": "model.py:12",         the user's line, or null (inputs and outputs have none)
      "shape": [32, 10], "dtype": "float32", "device": "cpu",    null for anything but one tensor
      "bytes": 1280,                   of all tensors that the node outputs
      "param_bytes": 0,                of the trainable parameters that the node reads or owns
      "flops": 0,                      floating-point operations of one forward
      "bucket": 0,                     index of the gradient bucket, or null
      "replica": null, "opaque": false, "created_by": "inline-modules"
    }

A graph that runs once in each replica stands between the nodes that split and join the batch; names
of its nodes begin with that of the node that reads it, as in ``replica.linear``.

In ``before`` a value that was not known yet when the graph was captured is taken from ``after`` where
the same operation is still there.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopar.errors import ModelError

if TYPE_CHECKING:
    from torch import fx

    from autopar.compilation import Compilation
    from autopar.program import Program, Remark, SourceLine

__all__ = ["GRAPH_VERSION", "graph_document", "read_document", "write_document"]

GRAPH_VERSION = 1
_FORMAT = "autopar-graph"
_MEND = "Give a graph.json that `autopar transform` wrote, or the model's file."


def graph_document(compilation: Compilation, *, strategy: str, world_size: int | None = None) -> dict[str, Any]:
    """Everything that a compilation made, as JSON values.

    Args:
        compilation: what ``autopar.compilation.compile_program`` returned.
        strategy: registered name of the strategy.
        world_size: number of ranks, where it is known.
    """
    plan = compilation.lowered.plan
    after = _graph(compilation.program)
    before = _graph(compilation.before)
    _fill(before["nodes"], after["nodes"])
    return {
        "format": _FORMAT,
        "version": GRAPH_VERSION,
        "autopar": version("autopar"),
        "model": compilation.program.name,
        "strategy": strategy,
        "front_end": compilation.program.front_end,
        "world_size": world_size,
        "plan": None if plan is None else json.loads(plan.to_json()),
        "before": before,
        "after": after,
        "remarks": [_remark(remark) for remark in compilation.remarks],
        "passes": [dataclasses.asdict(record) for record in compilation.records],
    }


def write_document(document: Mapping[str, Any]) -> str:
    """The document as JSON text, one node a line, so that two of them can be compared by line."""
    parts = []
    for key, value in document.items():
        if key in ("before", "after"):
            inner = ",\n".join(f"  {json.dumps(name)}: {_lines(value[name], '  ')}" for name in ("nodes", "edges"))
            text = f"{{\n{inner}\n }}"
        elif key in ("remarks", "passes"):
            text = _lines(value, " ")
        else:
            text = json.dumps(value)
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def read_document(text: str, *, name: str = "The file") -> dict[str, Any]:
    """Reads what ``write_document`` wrote.

    Args:
        text: the JSON text.
        name: where it came from, for messages.

    Raises:
        ModelError: the text is no graph document, or one of another version.
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ModelError(f"{name} is not JSON (line {error.lineno}: {error.msg}).", mend=_MEND) from None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ModelError(f"{name} is JSON but no graph of autopar's.", mend=_MEND)
    if document.get("version") != GRAPH_VERSION:
        raise ModelError(
            f"{name} has version {document.get('version')!r}; this autopar reads version {GRAPH_VERSION}.",
            mend="Run `autopar transform` again to make a new one.",
        )
    missing = [key for key in ("model", "strategy", "before", "after", "remarks") if key not in document]
    if missing:
        raise ModelError(f"{name} is damaged: it has no {', '.join(missing)}.", mend=_MEND)
    return document


def _lines(items: Iterable[Any], indent: str) -> str:
    rows = [f"{indent} {json.dumps(item)}" for item in items]
    return "[\n" + ",\n".join(rows) + f"\n{indent}]" if rows else "[]"


def _graph(program: Program) -> dict[str, Any]:
    nodes: list[dict[str, Any]] = []
    edges: list[list[str]] = []
    for node in program.graph.nodes:
        nodes.append(_node(node, program.graph_module))
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
    nodes += [{**_node(node, inner), "name": name} for node, name in names.items()]
    edges += [[names[source], name] for node, name in names.items() for source in node.all_input_nodes]
    arguments = list(inner.graph.find_nodes(op="placeholder"))
    for index, argument in enumerate(arguments):
        source = data if index >= len(arguments) - inputs or not state else state[0]
        edges.append([source.name, names[argument]])
    edges.append([names[next(iter(reversed(inner.graph.nodes)))], user.name])


def _node(node: fx.Node, root: fx.GraphModule) -> dict[str, Any]:
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
        "source": None if node.op in ("placeholder", "output") else _source(known.source),
        "shape": None if known.shape is None else list(known.shape),
        "dtype": known.dtype,
        "device": known.device,
        "bytes": known.nbytes,
        "param_bytes": known.param_bytes or owned,
        "flops": known.flops,
        "bucket": known.bucket,
        "replica": known.replica,
        "opaque": known.opaque,
        "created_by": known.created_by,
    }


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


def _source(line: SourceLine | None) -> str | None:
    if line is None:
        return None
    path = Path(line.file)  # relative where it can be: the document travels to other machines
    here = Path.cwd()
    return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{line.line}"


def _remark(remark: Remark) -> dict[str, Any]:
    return {
        "kind": remark.kind,
        "stage": remark.stage,
        "message": remark.message,
        "module": remark.module_path,
        "source": _source(remark.source),
        "mend": remark.mend,
        "bytes": remark.nbytes,
    }


_LATE = ("shape", "dtype", "device", "bytes", "flops")


def _fill(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
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
