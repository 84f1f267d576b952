"""Opens the modules of torch.nn whose forward is a pure function of inputs and parameters."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, ClassVar

import torch
from torch import fx, nn

from autopar import ops
from autopar.capture.watch import PLAIN
from autopar.passes.base import PassContext, PassResult
from autopar.program import NodeInfo, Program, Remark, annotate, info

__all__ = ["InlineModules"]

_PURE: frozenset[type[nn.Module]] = frozenset({
    nn.Identity, nn.Flatten, nn.Unflatten,
    nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag,
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm,
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Softplus, nn.Softsign,
    nn.LogSigmoid, nn.Softmax, nn.LogSoftmax, nn.GLU,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.ZeroPad2d, nn.ConstantPad1d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d,
    nn.Upsample, nn.PixelShuffle, nn.PixelUnshuffle, nn.Unfold, nn.Fold,
    nn.CrossEntropyLoss, nn.NLLLoss, nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss,
    nn.BCELoss, nn.BCEWithLogitsLoss, nn.KLDivLoss, nn.CosineSimilarity,
})  # fmt: skip
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True, slots=True)
class InlineModules:
    """Replaces calls of pure torch.nn modules by their operations on explicit parameters.

    A module is opened only when its class is exactly one that is known to be pure: a subclass, a
    parametrized or a hooked module may do more. Batch norms become ``ops.batch_norm``, which reads
    the train/eval flag when it runs, and synchronised ones ``ops.sync_batch_norm``. What stays whole
    but holds parameters is said in a remark.
    """

    name: ClassVar[str] = "inline-modules"
    requires: ClassVar[frozenset[str]] = frozenset({"captured"})
    provides: ClassVar[frozenset[str]] = frozenset({"inlined"})
    on_islands: ClassVar[bool] = True

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Opens every call that can be opened."""
        remarks: list[Remark] = []
        opened = 0
        baked = dict(program.attributes)
        for node in list(program.find("call_module")):
            if info(node).opaque:
                continue
            module = program.graph_module.get_submodule(str(node.target))
            if _is_open_book(module) and _open(program, node, module, baked):
                opened += 1
            elif type(module) in _BATCH_NORMS:
                _open_batch_norm(program, node, module)
                opened += 1
            elif any(p.requires_grad for p in module.parameters()):
                annotate(node, opaque=True)
                remarks.append(_stays_whole(node, module))
        message = f"{opened} modules were opened into operations."
        done = Remark(code="AP202", kind="passed", stage=self.name, message=message)
        program = dataclasses.replace(program, attributes=baked)
        return PassResult(
            program,
            changed=opened > 0,
            remarks=(done, *remarks),
            counters={"modules opened": opened, "modules kept whole": len(remarks)},
        )


def _is_open_book(module: nn.Module) -> bool:
    if type(module) not in _PURE:
        return False
    # max_norm renormalises the weight in place inside forward: not a pure function.
    return getattr(module, "max_norm", None) is None


class _StandIn(fx.Proxy):
    """A value of an opened forward, which writes a function of torch as what it is.

    fx's own asks of each function whether it is a method of a tensor: as long as writing the node takes.
    """

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] | None = None, kwargs: dict[str, Any] | None = None
    ) -> Any:
        if isinstance(function, (FunctionType, BuiltinFunctionType)):
            for arg in args or ():
                if isinstance(arg, cls):
                    return arg.tracer.create_proxy("call_function", function, args or (), kwargs or {})
        return super().__torch_function__(function, types, args, kwargs)


class _Writer(fx.proxy.GraphAppendingTracer):
    """Writes nodes at the place where a call stands."""

    def proxy(self, node: fx.Node) -> _StandIn:
        return _StandIn(node, self)


def _open(program: Program, call: fx.Node, module: nn.Module, baked: dict[tuple[str, str], Any]) -> bool:
    """Runs the module's own forward on stand-ins that write nodes where the call stands.

    Adds to ``baked`` the plain attributes that it read: the operations hold for these values only.

    Returns:
        Whether that was possible: a forward may ask for the value of a size, as transposed
        convolutions with an ``output_size`` do.
    """
    graph, tracer = program.graph, _Writer(program.graph)
    path, marked, mark = str(call.target), info(call), call.prev

    def stand_in(arg: Any) -> Any:
        return _StandIn(arg, tracer) if isinstance(arg, fx.Node) else arg

    args: Any = fx.node.map_aggregate(call.args, stand_in)
    kwargs: Any = fx.node.map_aggregate(call.kwargs, stand_in)
    opened = _Opened(module, path, tracer)
    try:
        with graph.inserting_before(call):
            value = tracer.create_arg(type(module).forward(opened, *args, **kwargs))
    except Exception:  # whatever it was, the module itself still runs
        while call.prev is not mark:
            graph.erase_node(call.prev)
        return False
    baked.update(opened._read)
    marked = dataclasses.replace(marked, module_path=path, created_by="inline-modules")
    outside = dataclasses.replace(marked, region="") if marked.region else marked
    while (mark := mark.next) is not call:
        mark.meta["autopar"] = outside if mark.op == "get_attr" else marked
    _replace(program, call, value)
    return True


class _Opened:
    """A module whose parameters are nodes and whose other attributes are its own."""

    def __init__(self, module: nn.Module, path: str, tracer: _Writer) -> None:
        self._module, self._path, self._tracer = module, path, tracer
        self._read: dict[tuple[str, str], Any] = {}

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        if isinstance(value, torch.Tensor):
            read = self._tracer.graph.create_node("get_attr", f"{self._path}.{name}")
            return _StandIn(read, self._tracer)
        if isinstance(value, MethodType) and value.__self__ is self._module:
            return MethodType(value.__func__, self)
        if type(value) in PLAIN and name in vars(self._module):
            self._read[self._path, name] = value
        return value


def _open_batch_norm(program: Program, call: fx.Node, module: nn.Module) -> None:
    path = str(call.target)
    (value,) = (*call.args, *call.kwargs.values())
    noted = info(call)
    marked = NodeInfo(module_path=path, source=noted.source, region=noted.region, created_by="inline-modules")
    with program.graph.inserting_before(call):
        owner = program.graph.get_attr(path)
        weight = program.graph.get_attr(f"{path}.weight") if module.weight is not None else None
        bias = program.graph.get_attr(f"{path}.bias") if module.bias is not None else None
        operation = ops.sync_batch_norm if isinstance(module, nn.SyncBatchNorm) else ops.batch_norm
        result = program.graph.call_function(operation, (owner, value, weight, bias))
    result.meta["autopar"] = marked
    for node in (owner, weight, bias):
        if node is not None:
            node.meta["autopar"] = dataclasses.replace(marked, region="")
    _replace(program, call, result)


def _replace(program: Program, call: fx.Node, result: object) -> None:
    call.replace_all_uses_with(result)  # type: ignore[arg-type]
    program.graph.erase_node(call)


def _stays_whole(node: fx.Node, module: nn.Module) -> Remark:
    path, kind = str(node.target), type(module).__name__
    return Remark(
        code="AP203",
        kind="missed",
        stage="inline-modules",
        message=f"{path} ({kind}) stays one opaque call: its forward is not known to be a pure function.",
        module_path=path,
        source=info(node).source,
        mend="Nothing is wrong with it: its gradients are gathered by hooks instead of by a graph node.",
        nbytes=sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad),
    )
