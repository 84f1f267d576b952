"""Takes a graph of torch.export over into the form of a Program's: reads by name, no checks, no nested graphs."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from autopar import compat
from autopar.capture.source import line_of_trace
from autopar.program import NodeInfo

__all__ = ["ExportRefusedError", "adopt", "attribute", "input_shapes"]

_LARGEST = 64  # elements of a constant that the graph itself may hold
_ATEN = torch.ops.aten
_CALL = re.compile(r"@\d+$")


class ExportRefusedError(Exception):
    """What torch.export made, or that it made nothing, does not do; the message is the end of a sentence."""


def adopt(exported: Any, model: nn.Module, names: Sequence[str], *, prefix: str) -> fx.Graph:
    """The graph of an ``ExportedProgram`` with reads of the model's own state by name.

    Args:
        exported: what torch.export returned for a module that calls ``model`` on flat tensors.
        model: owner of the state.
        names: for the placeholders, one for each input tensor.
        prefix: path of ``model`` in the exported module, with its dot.

    Raises:
        ExportRefusedError: the graph holds something that a Program does not.
    """
    return _Adoption(model, prefix).run(exported, names)


def input_shapes(exported: Any) -> list[Sequence[Any]]:
    """Of each input tensor of an ``ExportedProgram``: numbers and symbolic sizes."""
    return [node.meta["val"].shape for node in _inputs(exported)]


def _inputs(exported: Any) -> list[fx.Node]:
    ours = {spec.arg.name for spec in exported.graph_signature.input_specs if spec.kind.name == "USER_INPUT"}
    return [node for node in exported.graph.find_nodes(op="placeholder") if node.name in ours]


class _Adoption:
    def __init__(self, model: nn.Module, prefix: str) -> None:
        self.model, self.prefix = model, prefix
        self.graph = fx.Graph()
        self.paths = {path for path, _ in model.named_modules()}

    def run(self, exported: Any, names: Sequence[str]) -> fx.Graph:
        specs = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
        placeholders = exported.graph.find_nodes(op="placeholder")
        given = _inputs(exported)
        values: dict[fx.Node, Any] = {
            node: self.graph.placeholder(name) for node, name in zip(given, names, strict=True)
        }
        for node in placeholders:
            if node not in values and node.users:
                values[node] = self._state(specs[node.name], exported)
        if any(spec.kind.name != "USER_OUTPUT" for spec in exported.graph_signature.output_specs):
            raise ExportRefusedError("torch.export returns what the forward writes instead of writing it")
        results = self._copy(exported.graph_module, values, grad=True)
        self.graph.output(tuple(results))
        for node in reversed(self.graph.nodes):
            if _is_idle(node):
                self.graph.erase_node(node)
        return self.graph

    def _state(self, spec: Any, exported: Any) -> fx.Node:
        """A parameter, buffer or other tensor of the model's, by its name; a small constant as what it is."""
        kind, name = spec.kind.name, str(spec.target).removeprefix(self.prefix)
        if kind in ("PARAMETER", "BUFFER"):
            return self._read(name)
        constant = exported.constants.get(spec.target)
        if not isinstance(constant, torch.Tensor):
            raise ExportRefusedError(f"it uses {spec.target}, which is no tensor")
        if attribute(self.model, name) is constant:
            return self._read(name)
        if constant.numel() > _LARGEST or constant.layout != torch.strided:
            raise ExportRefusedError(f"it makes a constant of {constant.numel():,} elements, which no module holds")
        options: Any = {"dtype": constant.dtype, "device": constant.device}
        node = self.graph.call_function(torch.tensor, (constant.tolist(),), options)
        node.meta["autopar"] = NodeInfo()
        return node

    def _read(self, name: str) -> fx.Node:
        node = self.graph.get_attr(name)
        node.meta["autopar"] = NodeInfo(module_path=name.rpartition(".")[0])
        return node

    def _copy(self, module: fx.GraphModule, values: dict[fx.Node, Any], *, grad: bool) -> Sequence[Any]:
        """Copies a graph's operations, those of the graphs in it included; returns its outputs."""
        for node in module.graph.nodes:
            if node.op == "output":
                return tuple(fx.node.map_arg(node.args[0], values.__getitem__))
            if node in values or node.op == "placeholder" or _is_check(node):
                continue
            if node.op == "get_attr":
                values[node] = module.get_submodule(str(node.target))
            elif node.op != "call_function":
                raise ExportRefusedError(f"torch.export left a {node.op}")
            elif compat.is_grad_region(node.target):
                values[node] = self._region(node, values, grad=grad)
            elif node.target is operator.getitem and isinstance(values[node.args[0]], tuple):
                values[node] = values[node.args[0]][node.args[1]]
            else:
                values[node] = self._operation(node, values)
        raise ExportRefusedError("torch.export left a graph without an output")

    def _region(self, node: fx.Node, values: Mapping[fx.Node, Any], *, grad: bool) -> Sequence[Any]:
        """What runs under ``no_grad()``: the same operations on inputs that are cut off."""
        arguments: list[Any] = [values[arg] if isinstance(arg, fx.Node) else arg for arg in node.args]
        enabled, inner, *given = arguments
        if enabled and not grad:
            raise ExportRefusedError("it enables gradients within no_grad()")
        if not enabled:
            given = [self._detached(value, arg) for value, arg in zip(given, node.args[2:], strict=True)]
        inputs = inner.graph.find_nodes(op="placeholder")
        return self._copy(inner, dict(zip(inputs, given, strict=True)), grad=bool(enabled))

    def _detached(self, value: Any, original: Any) -> Any:
        described = original.meta.get("val") if isinstance(original, fx.Node) else None
        if not isinstance(described, torch.Tensor) or not (described.is_floating_point() or described.is_complex()):
            return value
        node = self.graph.call_method("detach", (value,))
        node.meta["autopar"] = self._noted(original)
        return node

    def _operation(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> fx.Node:
        target = node.target
        public = getattr(target, "__module__", "") in ("_operator", "math", "builtins", "torch")
        if not isinstance(target, compat.OpOverload) and not public:
            raise ExportRefusedError(f"it needs {getattr(target, '__name__', target)}, which is no operation")
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        if target is _ATEN.sym_size.int:
            made = self.graph.call_method("size", args)
        else:
            made = self.graph.create_node("call_function", target, args, kwargs, name=node.name)
        made.meta["autopar"] = self._noted(node)
        return made

    def _noted(self, node: fx.Node) -> NodeInfo:
        source = line_of_trace(node.meta.get("stack_trace") or "")
        path = ""
        for entered, _ in (node.meta.get("nn_module_stack") or {}).values():
            name = _CALL.sub("", str(entered).removeprefix("L['self'].")).removeprefix(self.prefix)
            path = name if name in self.paths else path
        return NodeInfo(module_path=path, source=source)


def _is_check(node: fx.Node) -> bool:
    """Whether the node only checks what guards check before.

    Raises:
        ExportRefusedError: it checks a value that is known only while the model runs.
    """
    if node.target in (_ATEN._assert_tensor_metadata.default, *compat.RANGE_CHECKS):
        return True
    if node.target is not _ATEN._assert_scalar.default:
        return False
    condition = node.args[0]
    if not (isinstance(condition, fx.Node) and condition.target is operator.ge and condition.args[1] == 0):
        raise ExportRefusedError("it holds only for some values, which are known while it runs")
    return True  # a number of elements is never negative


def _is_idle(node: fx.Node) -> bool:
    """Whether nothing needs what the node finds out."""
    looks = node.target in ("size", "detach", operator.ge)
    return looks and not node.users


def attribute(model: nn.Module, name: str) -> Any:
    """What the model holds under a dotted name; None where it holds nothing."""
    owner, _, key = name.rpartition(".")
    try:
        return getattr(model.get_submodule(owner), key, None)
    except AttributeError:
        return None
