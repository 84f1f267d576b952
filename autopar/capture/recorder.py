"""Writes down what one real run of a model does, as a graph.

The model runs as it always does, once, on real tensors; every call of a torch function passes by
and becomes a node, and every number read from a shape remembers where it came from. Modules are
*frames*: one whose forward does what no graph can show is taken back and becomes a single call,
while the run goes on. So nothing is tried twice, and Python code of any kind simply happens.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from autopar import compat
from autopar.capture.aliasing import base_of, written_by
from autopar.capture.frames import Frame, Refusal, Rules, python_streams
from autopar.capture.functions import Kind, classify, pins_sizes, spelling
from autopar.capture.sizes import Size
from autopar.capture.source import calling_line, forward_line
from autopar.capture.tape import Tape, UnknownTensorError, holds_tensor
from autopar.capture.values import is_never_true, question
from autopar.guards import Condition, Dim
from autopar.program import Region, SourceLine

__all__ = ["DRAWS", "Recorder"]


class Recorder(TorchFunctionMode):
    """Records within ``with recorder:``; of this thread only.

    Args:
        modules: all by path, the root as `""`.
        inputs: the tensors that flow in, under the names that their placeholders get.
        follow_random: look, module by module, whether Python's or NumPy's random numbers are drawn.

    Attributes:
        tape: the nodes.
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
        self,
        modules: Mapping[str, nn.Module],
        inputs: Sequence[tuple[str, torch.Tensor]],
        *,
        follow_random: bool = False,
    ) -> None:
        super().__init__()
        self.follow_random = follow_random
        self.model = model = modules[""]
        self.frames: list[Frame] = []
        self.refusals: dict[str, Refusal] = {}
        self.changed: dict[int, set[str]] = {}
        self.called: set[int] = {id(model)}
        self.unsettled = False
        self.regions: dict[str, Region] = {}
        self._region = ""
        self.paths = {id(module): path for path, module in modules.items()}
        self._thread = threading.get_ident()
        self._paused = 0
        self.tape = Tape(modules, inputs, lambda: (self.frames[-1].path, self._region))
        self.graph, self.notes = self.tape.graph, self.tape.notes

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
        if not holds_tensor(result):
            if not holds_tensor((args, kwargs)) or _is_metadata(result):
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
            nodes = self.tape.argument((args, dict(kwargs)))
        except UnknownTensorError as error:
            self.refuse(str(error))
            return
        if pins_sizes(function):
            self._pin_sizes(args[:1])
        op, target, positional = spelling(function, nodes[0], nodes[1])
        node = self.tape.node(op, target, positional, nodes[1])
        for written in map(base_of, written_by(node)):
            if written.op == "get_attr":
                self.refuse(f"its forward writes to {str(written.target)!r} in place")
        self.tape.bind(result, node)

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
            nodes = self.tape.argument((args, kwargs))
        except UnknownTensorError as error:
            self.refuse(f"of the custom autograd function {cls.__name__}: {error}")
            return
        self.tape.bind(result, self.tape.node("call_function", cls.apply, *nodes))

    # sizes and values -------------------------------------------------------------------------

    def _sizes(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        plain_args, plain_kwargs = compat.tree_map(_without_origin, (args, kwargs))
        result = function(*plain_args, **plain_kwargs)
        tensor = args[0]
        try:
            node = self.tape.tensor(tensor)
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

    def _pin_sizes(self, values: Sequence[Any]) -> None:
        for value in values:
            if isinstance(value, torch.Tensor):
                for dim, size in enumerate(value.size()):
                    Size.of(size, Dim(self.tape.tensor(value), dim), self.notes).pin()

    def _value(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
        """Python is given the value of a tensor: fine where the inputs alone decide it."""
        mark = self.tape.mark()
        try:
            nodes = self.tape.argument((args, kwargs))
        except UnknownTensorError as error:
            self.refuse(str(error))
            return result
        op, target, positional = spelling(function, nodes[0], nodes[1])
        node = self.tape.node(op, target, positional, nodes[1])
        if getattr(function, "__name__", "") == "__bool__" and is_never_true(node.args[0]) and result is False:
            self.tape.back_to(mark)
            return result
        asked = question(node, result, self.model, {node: value for node, (_, value) in self.tape.size_values.items()})
        if asked is None:
            self.tape.back_to(mark)
            self.refuse(_CONTROL_FLOW)
        else:
            self.frames[-1].questions.append(asked)
            for size in asked.sizes:
                origin, value = self.tape.size_values[size]
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
            before, mark, start = rules.before(module), self.tape.mark(), self.streams()
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
            self.tape.back_to(mark)
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
            nodes = self.tape.argument((args, kwargs))
            self._check_addressable(result, refusal)
        except UnknownTensorError as error:
            reason, source = ("it stays whole", None) if refusal is None else (refusal.reason, refusal.source)
            outer = self.frames[-1]
            outer.refusal = Refusal(outer.module, f"of its submodule {path} ({reason}; {error})", source)
            return
        node = self.tape.node("call_module", path, *nodes, module_path=path, opaque=refusal is not None)
        self.tape.bind(result, node)
        if not torch.is_grad_enabled():
            self.tape.detach(result)
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
        elif refusal is None and not holds_tensor(result):
            return
        else:
            raise UnknownTensorError(f"it returns a {type(result).__name__}")
        for part in parts:
            self._check_addressable(part, refusal)

    def streams(self) -> Any:
        """Python's and NumPy's random numbers now; None where they are not followed."""
        return python_streams() if self.follow_random else None

    def _drawn_inside(self, start: Any) -> None:
        """What a submodule has drawn since ``start`` is not its caller's doing."""
        if self.frames[-1].streams == start:
            self.frames[-1].streams = self.streams()

    def finish(self, outputs: Sequence[Any]) -> None:
        """Ends the graph with its outputs.

        Raises:
            UnknownTensorError: an output is no result of the graph.
        """
        self.tape.finish(outputs, {asked.node for frame in self.frames for asked in frame.questions})


DRAWS = "it draws random numbers that no graph shows"
_CHANGES_MODES = "it changes how operations run (autocast or inference mode)"
_CONTROL_FLOW = "its Python control flow depends on a tensor"


def _without_origin(value: Any) -> Any:
    return int.__int__(value) if type(value) is Size else value


def _is_metadata(result: Any) -> bool:
    return isinstance(result, (torch.dtype, torch.device, torch.layout, torch.finfo, torch.iinfo))


def _deed(function: Any) -> str:
    name = getattr(function, "__name__", str(function))
    verb = {"__set__": "assigns", "__delete__": "deletes", "__get__": "reads"}.get(name)
    return f"calls {name}()" if verb is None else f"{verb} the attribute {function.__self__.__name__!r} of a tensor"
