"""Writes down what one real run of a model does, as a graph.

The model runs as it always does, once, on real tensors; every call of a torch function passes by
and becomes a node, and every number read from a shape remembers where it came from. Modules are
*frames*: one whose forward does what no graph can show is taken back and becomes a single call,
while the run goes on. So nothing is tried twice, and Python code of any kind simply happens.
"""

from __future__ import annotations

import operator
import random
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import fx, nn
from torch.overrides import TorchFunctionMode

from autopar import compat
from autopar.capture.aliasing import base_of, written_by
from autopar.capture.functions import Kind, classify, pins_sizes, spelling
from autopar.capture.sizes import Size, SizeNotes
from autopar.capture.source import calling_line, forward_line
from autopar.capture.values import ValueQuestion, is_never_true, question
from autopar.guards import Condition, Dim, Expression
from autopar.program import NodeInfo, Region, SourceLine

__all__ = ["DRAWS", "Frame", "Recorder", "Refusal", "Rules", "UnknownTensorError", "python_streams"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.layout,
          torch.memory_format, type(Ellipsis))  # fmt: skip


class UnknownTensorError(Exception):
    """A value that no node of the graph stands for; the message is the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a module stays one call.

    Attributes:
        module: the module.
        reason: the end of a sentence.
        source: the line that forced it.
    """

    module: nn.Module
    reason: str
    source: SourceLine | None


@dataclass(slots=True)
class Frame:
    """A module whose forward is running.

    Attributes:
        path: dotted path of the module.
        module: the module.
        modes: what besides its inputs decided what operations did when it began.
        refusal: why it cannot be nodes of its own; None while it can.
        training, attributes: what it read of modules and baked in.
        questions: values of inputs that its Python code asked for.
        streams: Python's and NumPy's random numbers as its own code left them, where they are followed.
    """

    path: str
    module: nn.Module
    modes: Any
    refusal: Refusal | None = None
    training: dict[nn.Module, bool] = field(default_factory=dict)
    attributes: dict[tuple[nn.Module, str], Any] = field(default_factory=dict)
    questions: list[ValueQuestion] = field(default_factory=list)
    streams: Any = None


@dataclass(frozen=True, slots=True)
class _Mark:
    """A point of the recording, to come back to."""

    node: fx.Node
    bindings: int
    conditions: int


class Rules(Protocol):
    """What becomes of the submodules that a model calls."""

    def decide(self, module: nn.Module) -> tuple[bool, str | None]:
        """Whether it is one call whatever its forward does, and for what reason if that is a loss."""
        ...

    def run_whole(
        self, module: nn.Module, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Runs a submodule that is one call."""
        ...

    def before(self, module: nn.Module) -> Any:
        """What to compare with after its forward."""
        ...

    def after(self, module: nn.Module, before: Any) -> str | None:
        """Why its forward cannot be nodes, in view of what it changed; None where it can."""
        ...


class Recorder(TorchFunctionMode):
    """Records within ``with recorder:``; of this thread only.

    Args:
        model: the root.
        inputs: the tensors that flow in, under the names that their placeholders get.
        follow_random: look, module by module, whether Python's or NumPy's random numbers are drawn.

    Attributes:
        graph: what was recorded so far.
        frames: the modules that are running, outermost first.
        refusals: by path, for the modules that became one call.
        notes: conditions on sizes that the graph rests on.
        changed: by identity of a module, the attributes that it changes as an opaque call.
        called: identities of the modules that were called, the root among them.
        unsettled: whether a module was refused because the run changed its state.
        regions: the checkpoints that the run made, by name.
    """

    def __init__(
        self, model: nn.Module, inputs: Sequence[tuple[str, torch.Tensor]], *, follow_random: bool = False
    ) -> None:
        super().__init__()
        self.follow_random = follow_random
        self.model, self.graph, self.notes = model, fx.Graph(), SizeNotes()
        self.frames: list[Frame] = []
        self.refusals: dict[str, Refusal] = {}
        self.changed: dict[int, set[str]] = {}
        self.called: set[int] = {id(model)}
        self.unsettled = False
        self.regions: dict[str, Region] = {}
        self._region = ""
        self.paths = {id(module): path for path, module in model.named_modules()}
        self._thread = threading.get_ident()
        self._paused = 0
        self._nodes: dict[int, fx.Node] = {}  # by identity of the tensor
        self._kept: list[Any] = []  # keeps every tensor alive, so that identities stay unique
        self._undo: list[tuple[int, fx.Node | None]] = []
        self._erased: set[fx.Node] = set()
        self._size_nodes: dict[Any, fx.Node] = {}
        self._size_values: dict[fx.Node, tuple[Any, int]] = {}
        self._state = self._named_state(model)
        self._top: fx.Node | None = None
        for name, tensor in inputs:
            self._top = self.graph.placeholder(name)
            self._bind(tensor, self._top)

    # what the tensors of the model are called -------------------------------------------------

    @staticmethod
    def _named_state(model: nn.Module) -> dict[int, str]:
        names: dict[int, str] = {}
        for path, module in model.named_modules():
            for attribute, value in vars(module).items():
                if isinstance(value, torch.Tensor):
                    names[id(value)] = f"{path}.{attribute}" if path else attribute
        names |= {id(tensor): name for name, tensor in model.named_buffers()}
        return names | {id(tensor): name for name, tensor in model.named_parameters()}

    # operations -------------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether what happens now is to be recorded."""
        return not self._paused and bool(self.frames) and threading.get_ident() == self._thread

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within this block nothing is recorded."""
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1

    def refuse(self, reason: str, source: SourceLine | None = None) -> None:
        """Says that the module which is running cannot be taken apart, because of the line that it is at."""
        frame = self.frames[-1]
        if frame.refusal is None:
            frame.refusal = Refusal(frame.module, reason, source or calling_line())

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not self.active or self.frames[-1].refusal is not None:
            return func(*args, **kwargs)
        kind = classify(func)
        if kind is Kind.METADATA:
            return func(*args, **kwargs)
        if kind is Kind.SIZE:
            return self._sizes(func, args, kwargs)
        given_args, given_kwargs = compat.tree_map(_without_origin, (args, kwargs))
        result = func(*given_args, **given_kwargs)
        if kind is Kind.EFFECT:
            self.refuse(f"it {_deed(func)}, which a graph does not show")
            return result
        if not _holds_tensor(result):
            if not _holds_tensor((args, kwargs)) or _is_metadata(result):
                return result
            if result is not None:  # what returns nothing has written to one of its arguments
                return self._value(func, args, kwargs, result)
        with self._surviving():
            self.record(func, args, kwargs, result)
        return result

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        """A defect of the recorder's own ends the recording, and not the user's model."""
        try:
            yield
        except Exception as error:
            for frame in self.frames:
                reason = f"recording it failed with {type(error).__name__}: {error}"
                frame.refusal = Refusal(frame.module, reason, calling_line())

    def record(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        """Adds a node for a call that has happened."""
        frame = self.frames[-1]
        if compat.ambient_modes() != frame.modes:
            self.refuse(_CHANGES_MODES)
            return
        try:
            nodes = self.argument((args, dict(kwargs)))
        except UnknownTensorError as error:
            self.refuse(str(error))
            return
        if pins_sizes(function):
            self._pin_sizes(args[:1])
        op, target, positional = spelling(function, nodes[0], nodes[1])
        node = self.node(op, target, positional, nodes[1])
        for written in map(base_of, written_by(node)):
            if written.op == "get_attr":
                self.refuse(f"its forward writes to {str(written.target)!r} in place")
        self._bind(result, node)

    def node(self, op: str, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], **noted: Any) -> fx.Node:
        """A new node of the module that is running."""
        node = self.graph.create_node(op, target, args, dict(kwargs))
        place = {"module_path": self.frames[-1].path, "source": calling_line(), "region": self._region}
        node.meta["autopar"] = NodeInfo(**place | noted)
        return node

    @contextmanager
    def region(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """What is recorded within this block is a region of its own (see ``Program.regions``)."""
        if self._region:
            self.refuse("it makes a checkpoint inside another")
        before, self._region = self._region, f"checkpoint_{len(self.regions) + 1}"
        self.regions[self._region] = Region(settings, self.frames[-1].path, calling_line())
        try:
            yield
        finally:
            self._region = before

    def record_function(self, cls: type[torch.autograd.Function], args: Any, kwargs: Any, result: Any) -> None:
        """Adds a node for a custom autograd function that was applied."""
        if self.frames[-1].refusal is not None:
            return
        try:
            nodes = self.argument((args, kwargs))
        except UnknownTensorError as error:
            self.refuse(f"of the custom autograd function {cls.__name__}: {error}")
            return
        self._bind(result, self.node("call_function", cls.apply, *nodes))

    # arguments and results --------------------------------------------------------------------

    def argument(self, value: Any) -> Any:
        """A value as a node's argument.

        Raises:
            UnknownTensorError: nothing in the graph stands for a part of it.
        """
        kind = type(value)
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if kind is Size:
            return self._size(value.origin, int.__int__(value))
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

    def _tensor(self, tensor: torch.Tensor) -> fx.Node:
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

    def _bind(self, result: Any, node: fx.Node) -> None:
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
            if _holds_tensor(result[key]):
                self._bind(result[key], self.node("call_function", operator.getitem, (node, key), {}))

    # sizes and values -------------------------------------------------------------------------

    def _sizes(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        plain_args, plain_kwargs = compat.tree_map(_without_origin, (args, kwargs))
        result = function(*plain_args, **plain_kwargs)
        tensor = args[0]
        try:
            node = self._tensor(tensor)
        except UnknownTensorError as error:
            self.refuse(str(error))
            return result
        dims = [Size.of(size, Dim(node, dim), self.notes) for dim, size in enumerate(tensor.size())]
        name = getattr(function, "__name__", "")
        if name in ("__len__", "stride"):
            for dim in dims[:1] if name == "__len__" else dims:
                dim.pin()
            return result
        if name in ("numel", "nelement"):
            total: Any = 1
            for dim in dims:
                total = total * dim
            return total
        if isinstance(result, torch.Size):
            return torch.Size(dims)
        dim = plain_args[1] if len(plain_args) > 1 else plain_kwargs["dim"]
        return dims[dim]

    def _size(self, origin: Any, value: int | None = None) -> Any:
        if not isinstance(origin, (Dim, Expression)):
            return origin
        node = self._size_nodes.get(origin)
        if node is not None and node not in self._erased:
            return node
        if isinstance(origin, Dim):
            node = self.node("call_method", "size", (origin.source, origin.dim), {})
        else:
            operands = tuple(self._size(operand) for operand in origin.operands)
            node = self.node("call_function", origin.function, operands, {})
        self._size_nodes[origin] = node
        if value is not None:
            self._size_values[node] = (origin, value)
        return node

    def _pin_sizes(self, values: Sequence[Any]) -> None:
        for value in values:
            if isinstance(value, torch.Tensor):
                for dim, size in enumerate(value.size()):
                    Size.of(size, Dim(self._tensor(value), dim), self.notes).pin()

    def _value(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
        """Python is given the value of a tensor: fine where the inputs alone decide it."""
        mark = self._mark()
        try:
            nodes = self.argument((args, kwargs))
        except UnknownTensorError as error:
            self.refuse(str(error))
            return result
        op, target, positional = spelling(function, nodes[0], nodes[1])
        node = self.node(op, target, positional, nodes[1])
        if getattr(function, "__name__", "") == "__bool__" and is_never_true(node.args[0]) and result is False:
            self._back_to(mark)
            return result
        asked = question(node, result, self.model, {node: value for node, (_, value) in self._size_values.items()})
        if asked is None:
            self._back_to(mark)
            self.refuse(_CONTROL_FLOW)
        else:
            self.frames[-1].questions.append(asked)
            for size in asked.sizes:
                origin, value = self._size_values[size]
                self.notes.note(Condition(operator.eq, (origin, value), outcome=True))
        return result

    # frames -----------------------------------------------------------------------------------

    def call_module(
        self, module: nn.Module, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], rules: Rules
    ) -> Any:
        """Runs a submodule: as a frame of its own, or as one call.

        Args:
            module: the submodule.
            call: runs it.
            args, kwargs: its arguments.
            rules: decide what becomes of it.
        """
        outer = self.frames[-1]
        if outer.refusal is not None:
            return call(module, *args, **kwargs)
        with self.paused():
            self.called.add(id(module))
            modes = compat.ambient_modes()
            if modes != outer.modes:
                self.refuse(_CHANGES_MODES)
                return call(module, *args, **kwargs)
            is_one_call, reason = rules.decide(module)
        if is_one_call:
            refusal = None if reason is None else Refusal(module, reason, calling_line())
            with self.paused():
                start = self.streams()
                result = rules.run_whole(module, call, args, kwargs)
                self._drawn_inside(start)
                with self._surviving():
                    self._stand_in(module, refusal, args, kwargs, result)
            return result
        return self._call_frame(Frame(self.paths[id(module)], module, modes), call, args, kwargs, rules)

    def _call_frame(
        self, frame: Frame, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], rules: Rules
    ) -> Any:
        outer, module = self.frames[-1], frame.module
        with self.paused():
            before, mark, start = rules.before(module), self._mark(), self.streams()
        frame.streams = start
        self.frames.append(frame)
        try:
            result = call(module, *args, **kwargs)
            with self.paused():
                problem = rules.after(module, before) if frame.refusal is None else None
                if frame.refusal is None and problem is None and frame.streams != self.streams():
                    problem = DRAWS
                if problem is not None:
                    self.refuse(problem, forward_line(module))
        finally:
            self.frames.pop()
        self._drawn_inside(start)
        if frame.refusal is None:
            outer.training |= frame.training
            outer.attributes |= frame.attributes
            outer.questions += frame.questions
            return result
        with self.paused(), self._surviving():
            self._back_to(mark)
            self._stand_in(module, frame.refusal, args, kwargs, result)
        return result

    def _stand_in(
        self, module: nn.Module, refusal: Refusal | None, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        """Adds the call of a module that stays whole; its caller stays whole, too, where that cannot be a node."""
        if module._modules:
            self.called.update(map(id, module.modules()))
        path = self.paths[id(module)]
        try:
            nodes = self.argument((args, kwargs))
            self._check_addressable(result, refusal)
        except UnknownTensorError as error:
            reason, source = ("it stays whole", None) if refusal is None else (refusal.reason, refusal.source)
            outer = self.frames[-1]
            outer.refusal = Refusal(outer.module, f"of its submodule {path} ({reason}; {error})", source)
            return
        node = self.node("call_module", path, *nodes, module_path=path, opaque=refusal is not None)
        self._bind(result, node)
        if not torch.is_grad_enabled():
            self._detach(result)
        if refusal is not None:
            self.refusals.setdefault(path, refusal)

    def _check_addressable(self, result: Any, refusal: Refusal | None) -> None:
        """A call's result must be tensors in containers: anything else might be another the next time."""
        if isinstance(result, (torch.Tensor, str, type(None))):
            return
        if isinstance(result, Mapping):
            parts = list(result.values())
        elif isinstance(result, (tuple, list)):
            parts = list(result)
        elif refusal is None and not _holds_tensor(result):
            return
        else:
            raise UnknownTensorError(f"it returns a {type(result).__name__}")
        for part in parts:
            self._check_addressable(part, refusal)

    def _detach(self, result: Any) -> None:
        for leaf in compat.tree_flatten(result)[0]:
            if isinstance(leaf, torch.Tensor) and id(leaf) in self._nodes:
                self._bind(leaf, self.node("call_method", "detach", (self._nodes[id(leaf)],), {}))

    def _mark(self) -> _Mark:
        last = next(iter(reversed(self.graph.nodes)))
        return _Mark(last, len(self._undo), len(self.notes.conditions))

    def streams(self) -> Any:
        """Python's and NumPy's random numbers now; None where they are not followed."""
        return python_streams() if self.follow_random else None

    def _drawn_inside(self, start: Any) -> None:
        """What a submodule has drawn since ``start`` is not its caller's doing."""
        if self.frames[-1].streams == start:
            self.frames[-1].streams = self.streams()

    def _back_to(self, mark: _Mark) -> None:
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

    def finish(self, outputs: Sequence[Any]) -> None:
        """Ends the graph with its outputs and removes reads that nothing uses.

        Raises:
            UnknownTensorError: an output is no result of the graph.
        """
        self.graph.output(tuple(self.argument(output) for output in outputs))
        keep = {asked.node for frame in self.frames for asked in frame.questions}
        for node in reversed(self.graph.nodes):
            idle = node.op == "get_attr" or node.target in ("size", "detach")
            if node.target is operator.getitem:  # one part of a tuple is named by its place among all
                idle = not any(part.users for part in node.args[0].users if part.target is operator.getitem)
            if idle and not node.users and node not in keep:
                self.graph.erase_node(node)
                self._erased.add(node)


DRAWS = "it draws random numbers that no graph shows"
_CHANGES_MODES = "it changes how operations run (autocast or inference mode)"
_CONTROL_FLOW = "its Python control flow depends on a tensor"


def python_streams() -> Any:
    """The state of the generators that no torch function draws from."""
    numpy = sys.modules.get("numpy.random")
    if numpy is None:
        return random.getstate()
    _, keys, *rest = numpy.get_state()
    return random.getstate(), keys.tobytes(), *rest


def _without_origin(value: Any) -> Any:
    return int.__int__(value) if type(value) is Size else value


def _holds_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or any(
        isinstance(leaf, torch.Tensor) for leaf in compat.tree_flatten(value)[0]
    )


def _is_metadata(result: Any) -> bool:
    return isinstance(result, (torch.dtype, torch.device, torch.layout, torch.finfo, torch.iinfo))


def _deed(function: Any) -> str:
    name = getattr(function, "__name__", str(function))
    verb = {"__set__": "assigns", "__delete__": "deletes", "__get__": "reads"}.get(name)
    return f"calls {name}()" if verb is None else f"{verb} the attribute {function.__self__.__name__!r} of a tensor"
