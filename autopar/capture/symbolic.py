"""Front end 1: symbolic tracing with torch.fx, region by region.

The user's modules are traced through; a module whose forward cannot be traced exactly stays one
call, and so does every module of ``torch.nn`` (the pass ``inline-modules`` opens those that are
pure). What fx would get wrong without a word is turned into a refusal of that module instead: see
``_Watch`` and ``docs/capture.md``.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from autopar import compat
from autopar.capture.state import attribute_changes, restore_attributes, snapshot_attributes
from autopar.program import NodeInfo, Program, Remark, Signature, SourceLine, annotate

__all__ = ["UntraceableError", "trace_symbolic"]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
_FACTORIES = (
    "arange", "empty", "eye", "full", "linspace", "logspace", "normal", "ones", "rand", "randint",
    "randn", "randperm", "scalar_tensor", "tensor", "zeros",
)  # fmt: skip
_LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))


class UntraceableError(Exception):
    """Tracing this region would not be exact; the message is the reason."""


class _Watch:
    """Notices what a region does that a graph would not show.

    Within ``watching()``: reads of ``module.training`` are recorded (the graph is exact for that
    mode only); tensor factories become nodes, so that nothing random or mutable is baked in; custom
    ``autograd.Function``s and saved-tensor hooks (checkpointing) refuse the region that uses them.
    """

    def __init__(self) -> None:
        self.read_training: dict[nn.Module, bool] = {}

    @contextmanager
    def watching(self, tracer: fx.Tracer) -> Iterator[None]:
        with ExitStack() as stack:
            for name in _FACTORIES:
                stack.enter_context(_patched(torch, name, _recorded_factory(getattr(torch, name), tracer)))
            stack.enter_context(_patched(nn.Module, "training", property(self._get_training, _set_training)))
            stack.enter_context(_patched(torch.autograd.Function, "apply", classmethod(_refuse_function)))
            stack.enter_context(_patched(torch.autograd.graph.saved_tensors_hooks, "__enter__", _refuse_hooks))
            yield

    def _get_training(self, module: nn.Module) -> bool:
        flag: bool = vars(module)["training"]
        self.read_training[module] = flag
        return flag


def trace_symbolic(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    in_spec: Any,
    tensors: Sequence[torch.Tensor],
    constants: Mapping[int, Any],
) -> Program:
    """Traces the model on symbolic stand-ins for ``tensors``.

    Args:
        model: the user's model; its attributes are put back as they were.
        args, kwargs: the sample call.
        in_spec, tensors, constants: the same call, split by ``autopar.capture.inputs.split``.

    Returns:
        A Program in which every module that could not be traced is one call, with a remark.

    Raises:
        UntraceableError: the root itself cannot be traced.
    """
    stateful: dict[nn.Module, str] = {}
    for _ in range(1 + sum(1 for _ in model.modules())):
        snapshot = snapshot_attributes(model)
        tracer = _RegionTracer(model, in_spec, len(tensors), constants, stateful)
        try:
            graph = tracer.capture()
        finally:
            changes = attribute_changes(snapshot)
            restore_attributes(snapshot)
        found = {
            module: f"its forward changes the attribute {', '.join(map(repr, names))}"
            for module, names in changes.items()
            if module not in stateful
        }
        found |= tracer.buffer_writers(graph)
        if not found:
            break
        if model in found:
            raise UntraceableError(found[model])
        stateful |= found
    module = fx.GraphModule(model, graph, class_name=compat.original_class(model).__name__)
    signature = Signature(
        in_spec=in_spec,
        constants=dict(constants),
        inputs=tuple(node.name for node in graph.nodes if node.op == "placeholder"),
        out_spec=tracer.out_spec,
        out_constants=tracer.out_constants,
    )
    return Program(
        graph_module=module,
        model=model,
        signature=signature,
        front_end="symbolic",
        example=tuple(tensors),
        mode_dependent={tracer.path_of_module(m): flag for m, flag in tracer.watch.read_training.items()},
        remarks=tracer.remarks(),
    )


class _RegionTracer(fx.Tracer):
    """A tracer that turns a module which fails into one call and goes on."""

    proxy_buffer_attributes = True
    param_shapes_constant = False

    def __init__(
        self,
        model: nn.Module,
        in_spec: Any,
        count: int,
        constants: Mapping[int, Any],
        stateful: Mapping[nn.Module, str],
    ) -> None:
        super().__init__()
        self.model, self.in_spec, self.count, self.constants = model, in_spec, count, constants
        self.stateful = stateful
        self.watch = _Watch()
        self.out_spec: Any = None
        self.out_constants: dict[int, Any] = {}
        self.paths: list[str] = [""]
        self.refused: dict[str, tuple[nn.Module, str, SourceLine | None]] = {}
        self.modes = _ambient_modes()

    def capture(self) -> fx.Graph:
        """The graph of the whole model."""
        with self.watch.watching(self), torch.enable_grad():
            self.modes = _ambient_modes()
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
        names = _input_names(forward, self.in_spec, self.count, self.constants)
        leaves = [self.create_proxy("placeholder", name, (), {}) for name in names]

        def call(root: nn.Module, *inputs: Any) -> Any:
            flowing = iter(inputs)
            total = len(inputs) + len(self.constants)
            filled = [self.constants[i] if i in self.constants else next(flowing) for i in range(total)]
            args, kwargs = compat.tree_unflatten(filled, self.in_spec)
            result = forward(root, *args, **kwargs)
            outputs, self.out_spec = compat.tree_flatten(result)
            for index, leaf in enumerate(outputs):
                if isinstance(leaf, fx.Proxy):
                    continue
                if not isinstance(leaf, (bool, int, float, str, type(None))):
                    raise UntraceableError(f"it returns a {type(leaf).__name__}, which is no structure of tensors")
                self.out_constants[index] = leaf
            return tuple(leaf for leaf in outputs if isinstance(leaf, fx.Proxy))

        return call, [self.root, *leaves]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether the module is one call: all of torch.nn but its containers."""
        return _reason_to_keep_whole(m) is not None or (
            type(m).__module__.startswith(("torch.nn.", "torch.ao.nn.")) and not isinstance(m, _CONTAINERS)
        )

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Traces through the module, or makes it one call where that would not be exact."""
        try:
            path = self.path_of_module(m)
        except NameError:
            raise UntraceableError(f"it calls a {type(m).__name__} that is no submodule of the model") from None
        reason = self.stateful.get(m) or _reason_to_keep_whole(m)
        if reason is None and not self.is_leaf_module(m, path):
            mark = next(iter(reversed(self.graph.nodes)))
            self.paths.append(path)
            try:
                return forward(*args, **kwargs)
            except Exception as error:
                reason = _reason(error)
                self._erase_after(mark)
            finally:
                self.paths.pop()
        if reason is not None:
            self.refused.setdefault(path, (m, reason, _user_line()))
        call = self.create_proxy("call_module", path, args, kwargs)
        annotate(call.node, module_path=path, opaque=reason is not None)
        return call

    def create_node(self, kind: str, *args: Any, **kwargs: Any) -> fx.Node:
        """Makes a node, refusing to record what runs under another mode than the root."""
        if kind in ("call_function", "call_method", "call_module"):
            modes = _ambient_modes()
            if modes != self.modes:
                changed = next(name for name, value in modes.items() if value != self.modes[name])
                raise UntraceableError(f"it runs operations under a changed {changed}")
        node = super().create_node(kind, *args, **kwargs)
        node.meta["autopar"] = NodeInfo(module_path=self.paths[-1], source=_user_line())
        return node

    def create_arg(self, a: Any) -> Any:
        """Refuses tensors that are neither parameter nor buffer nor attribute: they would be baked in."""
        if isinstance(a, torch.Tensor) and not isinstance(a, nn.Parameter) and a not in self.tensor_attrs:
            raise UntraceableError("it uses a tensor that was computed outside the graph")
        return super().create_arg(a)

    def buffer_writers(self, graph: fx.Graph) -> dict[nn.Module, str]:
        """Modules whose own forward writes in place to a buffer or parameter."""
        writers: dict[nn.Module, str] = {}
        for node in graph.nodes:
            written = _written_argument(node)
            while isinstance(written, fx.Node) and written.op != "get_attr":
                written = written.args[0] if _is_view(written) and written.args else None
            if isinstance(written, fx.Node):
                owner = self.root.get_submodule(self.paths_of_node(node))
                writers[owner] = f"its forward writes to {str(written.target)!r} in place"
        return writers

    def paths_of_node(self, node: fx.Node) -> str:
        """Path of the module whose forward created the node."""
        found = node.meta["autopar"]
        assert isinstance(found, NodeInfo)
        return found.module_path

    def remarks(self) -> list[Remark]:
        """One missed remark for each module that stays whole."""
        return [
            Remark(
                kind="missed",
                stage="capture",
                message=f"{path} ({type(module).__name__}) stays one opaque call: {reason}.",
                module_path=path,
                source=line,
                mend=_MENDS.get(reason, "Keep it, or move what is untraceable into a submodule of its own."),
                nbytes=sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad),
            )
            for path, (module, reason, line) in self.refused.items()
            if any(node.op == "call_module" and node.target == path for node in self.graph.nodes)
        ]

    def _erase_after(self, mark: fx.Node) -> None:
        for node in reversed(self.graph.nodes):
            if node is mark:
                return
            self.graph.erase_node(node)


_CONTROL_FLOW = "its Python control flow depends on a tensor"
_MENDS = {
    _CONTROL_FLOW: "Use torch.where, or move the branch into a small submodule of its own.",
    "it is a ScriptModule": "Pass the plain module instead of the scripted one.",
    "it has hooks": "Remove the hooks, or keep it: hooks run as they always did.",
}


def _reason_to_keep_whole(module: nn.Module) -> str | None:
    if isinstance(module, torch.jit.ScriptModule):
        return "it is a ScriptModule"
    if compat.has_module_hooks(module):
        return "it has hooks"
    if "forward" in vars(module):
        return "its forward was replaced on the instance"
    if compat.is_parametrized(module):
        return "its parameters are parametrized"
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, UntraceableError):
        return str(error)
    text = str(error).strip().split("\n", 1)[0].rstrip(".")
    if isinstance(error, fx.proxy.TraceError) or "Proxy" in text:
        return _CONTROL_FLOW
    return f"tracing it raised {type(error).__name__}: {text}" if text else f"tracing it raised {type(error).__name__}"


def _user_line() -> SourceLine | None:
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_LIBRARIES) and not file.startswith("<"):
            return SourceLine(file, frame.f_lineno)
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _ambient_modes() -> dict[str, Any]:
    return {
        "torch.is_grad_enabled()": torch.is_grad_enabled(),
        "torch.is_inference_mode_enabled()": torch.is_inference_mode_enabled(),
        "autocast state": tuple(
            (device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in ("cpu", "cuda")
        ),
    }


def _input_names(root_fn: Callable[..., Any], in_spec: Any, count: int, constants: Mapping[int, Any]) -> list[str]:
    """Names for the tensor leaves: the forward's argument names, with a number for nested leaves."""
    total = count + len(constants)
    owners = compat.tree_unflatten(list(range(total)), in_spec)
    args, kwargs = owners
    try:
        bound = inspect.signature(root_fn).bind(None, *args, **kwargs)
        by_argument = list(bound.arguments.items())[1:]
    except (TypeError, ValueError):
        by_argument = [(f"arg{index}", value) for index, value in enumerate(args)] + list(kwargs.items())
    names: dict[int, str] = {}
    for argument, tree in by_argument:
        leaves, _ = compat.tree_flatten(tree)
        for number, leaf in enumerate(leaves):
            names[leaf] = argument if len(leaves) == 1 else f"{argument}_{number}"
    return [names[index] for index in range(total) if index not in constants]


def _written_argument(node: fx.Node) -> Any:
    """The node whose tensor this node writes to in place, if any."""
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    if node.op == "call_method" and isinstance(name, str) and name.endswith("_") and not name.endswith("__"):
        return node.args[0]
    if node.op == "call_function":
        if name == "setitem" or (isinstance(name, str) and name.endswith("_") and not name.startswith("_")):
            return node.args[0] if node.args else None
        if isinstance(name, str) and name in ("iadd", "isub", "imul", "itruediv", "ior", "iand", "ixor"):
            return node.args[0]
        return node.kwargs.get("out")
    return None


_VIEWS = frozenset({
    "view", "reshape", "narrow", "select", "squeeze", "unsqueeze", "transpose", "t", "permute",
    "expand", "flatten", "unbind", "chunk", "split", "getitem", "diagonal", "detach", "contiguous",
})  # fmt: skip


def _is_view(node: fx.Node) -> bool:
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    return name in _VIEWS or (name == "getattr" and node.args[1] in ("data", "T", "mT"))


def _recorded_factory(factory: Callable[..., Any], tracer: fx.Tracer) -> Callable[..., Any]:
    @functools.wraps(factory)
    def record(*args: Any, **kwargs: Any) -> Any:
        return tracer.create_proxy("call_function", factory, args, kwargs)

    return record


def _set_training(module: nn.Module, flag: bool) -> None:
    vars(module)["training"] = flag


def _refuse_function(cls: type, *args: Any, **kwargs: Any) -> Any:
    raise UntraceableError(f"it uses the custom autograd function {cls.__name__}")


def _refuse_hooks(self: Any) -> None:
    raise UntraceableError("it uses saved-tensor hooks (activation checkpointing)")


@contextmanager
def _patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    own = name in vars(owner)
    before = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)
