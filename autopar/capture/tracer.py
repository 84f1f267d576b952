"""The tracer of the symbolic front end: a region that cannot be traced exactly becomes one call."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from autopar import compat
from autopar.capture.aliasing import base_of, written_by
from autopar.capture.call import Call
from autopar.capture.recorded import RecordedValue, UntraceableError
from autopar.capture.source import calling_line, failing_line
from autopar.capture.state import RandomStreams
from autopar.capture.watch import Watch, ambient_modes
from autopar.program import NodeInfo, Remark, SourceLine, annotate, info

__all__ = ["STALE", "RegionTracer", "reason_to_keep_whole", "refusal"]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


def refusal(error: Exception) -> str:
    """Why tracing stopped, as the end of a sentence."""
    if isinstance(error, UntraceableError):
        return str(error)
    text = str(error).strip().split("\n", 1)[0].rstrip(".")
    if isinstance(error, fx.proxy.TraceError):
        return _CONTROL_FLOW
    if any(sign in text for sign in ("Proxy", RecordedValue.__name__, "symbolic tracing")):
        return "its Python code needs the value of a tensor or of a size"
    return f"tracing it raised {type(error).__name__}: {text}" if text else f"tracing it raised {type(error).__name__}"


@dataclass(frozen=True, slots=True)
class _Refused:
    module: nn.Module
    reason: str
    source: SourceLine | None


class RegionTracer(fx.Tracer):
    """A tracer that turns a module which fails into one call and goes on."""

    proxy_buffer_attributes = True
    param_shapes_constant = False

    def __init__(self, model: nn.Module, call: Call, stateful: Mapping[nn.Module, str], *, follow_random: bool) -> None:
        super().__init__()
        self.model, self.call, self.stateful, self.follow_random = model, call, stateful, follow_random
        self.watch = Watch()
        self.out_spec: Any = None
        self.out_constants: dict[int, Any] = {}
        self.regions: list[str] = [""]
        self.refused: dict[str, _Refused] = {}
        self.modes = ambient_modes()
        # fx walks all parameters at each read; a model of 1,000 layers reads thousands.
        self.state_names = {id(tensor): name for name, tensor in model.named_buffers()}
        self.state_names |= {id(tensor): name for name, tensor in model.named_parameters()}
        self.state_reads: dict[str, fx.Proxy] = {}
        self.module_paths = {id(module): path for path, module in model.named_modules()}

    def capture(self) -> fx.Graph:
        """The graph of the whole model."""
        known = self.module_paths.keys()
        with self.watch.watching(self, lambda module: id(module) in known), torch.enable_grad():
            self.modes = ambient_modes()
            graph = self.trace(self.model)
        for node in list(graph.nodes):
            if node.op == "get_attr" and not node.users:
                graph.erase_node(node)
        return graph

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        """One placeholder for each tensor leaf; the root is called in the structure of the sample call."""
        forward = compat.original_class(self.model).forward
        leaves = [self.create_proxy("placeholder", name, (), {}) for name in _input_names(forward, self.call)]

        def call(root: nn.Module, *inputs: Any) -> Any:
            args, kwargs = self.call.fill(inputs)
            with self._region(""):
                result = forward(root, *args, **kwargs)
            outputs, self.out_spec = compat.tree_flatten(result)
            for index, leaf in enumerate(outputs):
                if isinstance(leaf, fx.Proxy):
                    continue
                if leaf is STALE:
                    raise UntraceableError(_READS_STALE)
                if not isinstance(leaf, (bool, int, float, str, type(None))):
                    raise UntraceableError(f"it returns a {type(leaf).__name__}, which is no structure of tensors")
                self.out_constants[index] = leaf
            return tuple(leaf for leaf in outputs if isinstance(leaf, fx.Proxy))

        return call, [self.root, *leaves]

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """A stand-in for the node's result."""
        return RecordedValue(node, self)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Opens a value whose number of parts stands in the call that made it."""
        count = _number_of_parts(obj.node)
        return super().iter(obj) if count is None else map(self._part_of(obj), range(count))

    def _part_of(self, whole: fx.Proxy) -> Callable[[int], fx.Proxy]:
        return lambda index: self.create_proxy("call_function", operator.getitem, (whole, index), {})

    def path_of_module(self, mod: nn.Module) -> str:
        """The first path that leads to the module."""
        path: str | None = self.module_paths.get(id(mod))
        if path is None:
            raise UntraceableError(f"it calls a {type(mod).__name__} that is no submodule of the model")
        return path

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether the module is one call: all of torch.nn but its containers."""
        return type(m).__module__.startswith(("torch.nn.", "torch.ao.nn.")) and not isinstance(m, _CONTAINERS)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Traces through the module, or makes it one call where that would not be exact."""
        if not self.watch.here:
            return forward(*args, **kwargs)
        path = self.path_of_module(m)
        reason, source = self.stateful.get(m) or reason_to_keep_whole(m), None
        if reason is None and not self.is_leaf_module(m, path):
            mark = next(iter(reversed(self.graph.nodes)))
            read = dict(self.watch.read_training)
            try:
                with self._region(path):
                    return forward(*args, **kwargs)
            except Exception as error:
                reason, source = refusal(error), failing_line(error)
                self._erase_after(mark)
                self.watch.read_training = read
        if reason is not None:
            self.refused.setdefault(path, _Refused(m, reason, source or calling_line()))
        call = self.create_proxy("call_module", path, args, kwargs)
        annotate(call.node, module_path=path, opaque=reason is not None)
        return call

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        """A stand-in for a parameter or buffer of the model, the same one at each read."""
        name = self.state_names.get(id(attr_val)) if isinstance(attr_val, torch.Tensor) else None
        if name is None or not self.watch.here:
            return attr_val
        if name not in self.state_reads:
            self.state_reads[name] = self.create_proxy("get_attr", name, (), {})
        return self.state_reads[name]

    def create_node(self, kind: str, *args: Any, **kwargs: Any) -> fx.Node:
        """Makes a node, refusing to record what runs under another mode than the root."""
        if kind in ("call_function", "call_method", "call_module"):
            modes = ambient_modes()
            if modes != self.modes:
                changed = next(name for name, value in modes.items() if value != self.modes[name])
                raise UntraceableError(f"it runs operations under a changed {changed}")
        node = super().create_node(kind, *args, **kwargs)
        node.meta["autopar"] = NodeInfo(module_path=self.regions[-1], source=calling_line())
        return node

    def create_arg(self, a: Any) -> Any:
        """Refuses tensors that are neither parameter nor buffer nor attribute: they would be baked in."""
        if a is STALE:
            raise UntraceableError(_READS_STALE)
        if isinstance(a, torch.Generator):
            raise UntraceableError("it draws from a generator of its own")
        if isinstance(a, torch.Tensor):
            if id(a) in self.state_names:
                return self.getattr("", a, {}).node
            if isinstance(a, nn.Parameter):
                raise UntraceableError("it uses a parameter that is no parameter of the model")
            if a not in self.tensor_attrs:
                raise UntraceableError("it uses a tensor that was computed outside the graph")
        return super().create_arg(a)

    def buffer_writers(self, graph: fx.Graph) -> dict[nn.Module, str]:
        """Modules whose own forward writes in place to a buffer or parameter."""
        writers: dict[nn.Module, str] = {}
        for node in graph.nodes:
            for written in map(base_of, written_by(node)):
                if written.op == "get_attr":
                    owner = self.root.get_submodule(info(node).module_path)
                    writers[owner] = f"its forward writes to {str(written.target)!r} in place"
        return writers

    def remarks(self) -> list[Remark]:
        """One missed remark for each module that stays whole."""
        called = {node.target for node in self.graph.nodes if node.op == "call_module"}
        return [
            Remark(
                kind="missed",
                stage="capture",
                message=f"{path} ({type(one.module).__name__}) stays one opaque call: {one.reason}.",
                module_path=path,
                source=one.source,
                mend=_MENDS.get(one.reason, "Keep it, or move what is untraceable into a submodule of its own."),
                nbytes=sum(p.numel() * p.element_size() for p in one.module.parameters() if p.requires_grad),
            )
            for path, one in self.refused.items()
            if path in called
        ]

    @contextmanager
    def _region(self, path: str) -> Iterator[None]:
        """What is recorded within belongs to the module at ``path``."""
        streams = RandomStreams() if self.follow_random else None
        self.regions.append(path)
        try:
            yield
            if streams is not None and streams != RandomStreams():
                raise UntraceableError("it draws random numbers that no graph shows")
        except Exception:
            if streams is not None:
                streams.restore()  # the region will not be recorded, so it has not drawn
            raise
        finally:
            self.regions.pop()

    def _erase_after(self, mark: fx.Node) -> None:
        for node in reversed(self.graph.nodes):
            if node is mark:
                break
            self.graph.erase_node(node)
        alive = set(self.graph.nodes)
        self.state_reads = {name: read for name, read in self.state_reads.items() if read.node in alive}


# Stands in for attributes that an opaque module changes: what they hold while tracing is the last step's.
STALE = object()
_READS_STALE = "it reads an attribute that an opaque module changes"
_CONTROL_FLOW = "its Python control flow depends on a tensor"
_MENDS = {
    _CONTROL_FLOW: "Use torch.where, or move the branch into a small submodule of its own.",
    "it is a ScriptModule": "Pass the plain module instead of the scripted one.",
    "it has hooks": "Remove the hooks, or keep it: hooks run as they always did.",
}


def reason_to_keep_whole(module: nn.Module, *, hooks: bool = True) -> str | None:
    """Why a module cannot be opened whatever its forward does; None where it can be tried.

    Args:
        module: the module.
        hooks: whether its hooks count; those of the root run around the program.
    """
    if isinstance(module, torch.jit.ScriptModule):
        return "it is a ScriptModule"
    if hooks and compat.has_module_hooks(module):
        return "it has hooks"
    if "forward" in vars(module):
        return "its forward was replaced on the instance"
    if compat.is_parametrized(module):
        return "its parameters are parametrized"
    return None


def _number_of_parts(node: fx.Node) -> int | None:
    """How many tensors a chunk or split gives, where its arguments say so.

    A dim that is too short for its chunks gives fewer; reading a part that is not there raises
    then, as unpacking would.
    """
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", None)
    arguments = [*node.args[1:2], *(node.kwargs.get(key) for key in ("chunks", "split_size", "split_size_or_sections"))]
    given = next((argument for argument in arguments if argument is not None), None)
    if name == "chunk" and isinstance(given, int):
        return given
    if name in ("split", "split_with_sizes") and isinstance(given, (list, tuple)):
        return len(given)
    return None


def _input_names(forward: Callable[..., Any], call: Call) -> list[str]:
    """Names for the tensor leaves: the forward's argument names, with a number for nested leaves."""
    total = len(call.tensors) + len(call.constants)
    args, kwargs = compat.tree_unflatten(list(range(total)), call.spec)
    try:
        bound = inspect.signature(forward).bind(None, *args, **kwargs)
        by_argument = list(bound.arguments.items())[1:]
    except (TypeError, ValueError):
        by_argument = [(f"arg{index}", value) for index, value in enumerate(args)] + list(kwargs.items())
    names: dict[int, str] = {}
    for argument, tree in by_argument:
        leaves, _ = compat.tree_flatten(tree)
        for number, leaf in enumerate(leaves):
            names[leaf] = argument if len(leaves) == 1 else f"{argument}_{number}"
    return [names[index] for index in range(total) if index not in call.constants]
