"""The graph of a recording in the making: which node stands for which tensor of the run."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from autopar import compat
from autopar.capture.sizes import Size, SizeNotes
from autopar.capture.source import calling_line
from autopar.guards import Dim, Expression
from autopar.program import NodeInfo

__all__ = ["Mark", "Tape", "UnknownTensorError", "holds_tensor"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.layout,
          torch.memory_format, type(Ellipsis))  # fmt: skip


class UnknownTensorError(Exception):
    """A value that no node of the graph stands for; the message is the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A point of the recording, to come back to."""

    node: fx.Node
    bindings: int
    conditions: int


class Tape:
    """Nodes, and the tensors of the run that they stand for.

    Args:
        modules: by path, those whose parameters and buffers are read by name.
        inputs: the tensors that flow in, under the names that their placeholders get.
        place: path of the module and name of the region that a new node belongs to.

    Attributes:
        graph: what was recorded so far.
        notes: conditions on sizes that the graph rests on.
        size_values: for the nodes that compute sizes, where the size came from and what it was.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        inputs: Sequence[tuple[str, torch.Tensor]],
        place: Callable[[], tuple[str, str]],
    ) -> None:
        self.graph, self.notes = fx.Graph(), SizeNotes()
        self.size_values: dict[fx.Node, tuple[Any, int]] = {}
        self._place = place
        self._nodes: dict[int, fx.Node] = {}  # by identity of the tensor
        self._kept: list[Any] = []  # keeps every tensor alive, so that identities stay unique
        self._undo: list[tuple[int, fx.Node | None]] = []
        self._erased: set[fx.Node] = set()
        self._size_nodes: dict[Any, fx.Node] = {}
        self._state = self._named_state(modules)
        self._top: fx.Node | None = None
        for name, tensor in inputs:
            self._top = self.graph.placeholder(name)
            self.bind(tensor, self._top)

    @staticmethod
    def _named_state(modules: Mapping[str, nn.Module]) -> dict[int, str]:
        names: dict[int, str] = {}
        for kind in ("_parameters", "_buffers", ""):  # a tensor that is several of them has the first name
            for path, module in modules.items():
                for attribute, value in (getattr(module, kind) if kind else vars(module)).items():
                    if isinstance(value, torch.Tensor):
                        names.setdefault(id(value), f"{path}.{attribute}" if path else attribute)
        return names

    def node(self, op: str, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], **noted: Any) -> fx.Node:
        """A new node at the end of the graph."""
        node = self.graph.create_node(op, target, args, dict(kwargs))
        path, region = self._place()
        node.meta["autopar"] = NodeInfo(**{"module_path": path, "source": calling_line(), "region": region} | noted)
        return node

    def argument(self, value: Any) -> Any:
        """A value as a node's argument.

        Raises:
            UnknownTensorError: nothing in the graph stands for a part of it.
        """
        kind = type(value)
        if isinstance(value, torch.Tensor):
            return self.tensor(value)
        if kind is Size:
            return self.size(value.origin, int.__int__(value))
        if isinstance(value, _PLAIN):
            return value
        if kind in (list, tuple, torch.Size):
            return (list if kind is list else tuple)(self.argument(part) for part in value)
        if kind is dict:
            return {key: self.argument(part) for key, part in value.items()}
        if kind is slice:
            return slice(self.argument(value.start), self.argument(value.stop), self.argument(value.step))
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return kind(*(self.argument(part) for part in value))
        if isinstance(value, torch.Generator):
            raise UnknownTensorError("it draws from a generator of its own")
        raise UnknownTensorError(f"it passes a {kind.__name__} to an operation")

    def tensor(self, tensor: torch.Tensor) -> fx.Node:
        """The node of a tensor; under ``no_grad`` one without its gradient.

        Raises:
            UnknownTensorError: there is none, and it is not the model's.
        """
        node = self._nodes.get(id(tensor))
        if node is None:
            node = self._read(tensor)
        if tensor.requires_grad and not torch.is_grad_enabled():
            return self.node("call_method", "detach", (node,), {})
        return node

    def _read(self, tensor: torch.Tensor) -> fx.Node:
        name = self._state.get(id(tensor))
        if name is None:
            if isinstance(tensor, nn.Parameter):
                raise UnknownTensorError("it uses a parameter that is no parameter of the model")
            raise UnknownTensorError("it uses a tensor that was neither made by a torch function nor is the model's")
        last = self._top
        place = self.graph.inserting_after(last) if last is not None else self.graph.inserting_before()
        with place:
            node = self._top = self.graph.get_attr(name)
        node.meta["autopar"] = NodeInfo(module_path=name.rpartition(".")[0], source=calling_line())
        self._nodes[id(tensor)] = node
        return node

    def bind(self, result: Any, node: fx.Node) -> None:
        """Says that the tensors of a result are what a node returns."""
        if isinstance(result, torch.Tensor):
            self._undo.append((id(result), self._nodes.get(id(result))))
            self._nodes[id(result)] = node
            self._kept.append(result)
            return
        keys: Sequence[Any] = ()
        if isinstance(result, Mapping):
            keys = [key for key in result if isinstance(key, (str, int))]
        elif isinstance(result, (tuple, list)):
            keys = range(len(result))
        for key in keys:
            if holds_tensor(result[key]):
                self.bind(result[key], self.node("call_function", operator.getitem, (node, key), {}))

    def detach(self, result: Any) -> None:
        """Rebinds the tensors of a result to nodes through which no gradient flows."""
        for leaf in compat.tree_flatten(result)[0]:
            if isinstance(leaf, torch.Tensor) and id(leaf) in self._nodes:
                self.bind(leaf, self.node("call_method", "detach", (self._nodes[id(leaf)],), {}))

    def size(self, origin: Any, value: int | None = None) -> Any:
        """The node that computes a size (or number) from where it came from."""
        if not isinstance(origin, (Dim, Expression)):
            return origin
        node = self._size_nodes.get(origin)
        if node is not None and node not in self._erased:
            return node
        if isinstance(origin, Dim):
            node = self.node("call_method", "size", (origin.source, origin.dim), {})
        else:
            operands = tuple(self.size(operand) for operand in origin.operands)
            node = self.node("call_function", origin.function, operands, {})
        self._size_nodes[origin] = node
        if value is not None:
            self.size_values[node] = (origin, value)
        return node

    def mark(self) -> Mark:
        """Where the recording is now."""
        last = next(iter(reversed(self.graph.nodes)))
        return Mark(last, len(self._undo), len(self.notes.conditions))

    def back_to(self, mark: Mark) -> None:
        """Forgets what was recorded since."""
        for node in reversed(self.graph.nodes):
            if node is mark.node or node.op == "root":
                break
            if node.op not in ("placeholder", "get_attr"):
                self.graph.erase_node(node)
                self._erased.add(node)
        while len(self._undo) > mark.bindings:
            key, before = self._undo.pop()
            if before is None:
                self._nodes.pop(key, None)
            else:
                self._nodes[key] = before
        self.notes.conditions = dict(list(self.notes.conditions.items())[: mark.conditions])

    def finish(self, outputs: Sequence[Any], keep: Collection[fx.Node] = ()) -> None:
        """Ends the graph with its outputs and removes reads that nothing uses.

        Args:
            outputs: tensors and sizes.
            keep: nodes to keep in any case.

        Raises:
            UnknownTensorError: an output is no result of the graph.
        """
        self.graph.output(tuple(self.argument(output) for output in outputs))
        for node in reversed(self.graph.nodes):
            idle = node.op == "get_attr" or node.target in ("size", "detach")
            if node.target is operator.getitem:  # one part of a tuple is named by its place among all
                idle = not any(part.users for part in node.args[0].users if part.target is operator.getitem)
            if idle and not node.users and node not in keep:
                self.graph.erase_node(node)
                self._erased.add(node)


def holds_tensor(value: Any) -> bool:
    """Whether a value is a tensor or a structure with one in it."""
    return isinstance(value, torch.Tensor) or any(
        isinstance(leaf, torch.Tensor) for leaf in compat.tree_flatten(value)[0]
    )
