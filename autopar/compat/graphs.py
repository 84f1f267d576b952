"""Graph modules, exported graphs, dynamo and symbolic sizes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.checkpoint
from torch import fx, nn
from torch._ops import OpOverload
from torch.fx._lazy_graph_module import _LazyGraphModule

__all__ = [
    "RANGE_CHECKS",
    "OpOverload",
    "compiled_forward",
    "graph_module",
    "graphs_compiled",
    "is_compiled",
    "is_grad_region",
    "lacks_compiler",
    "outside_compiled_code",
    "recurrent_layers_in_dynamo",
    "size_expression",
    "size_guards",
]


def graph_module(root: nn.Module | dict[str, Any], graph: fx.Graph, class_name: str) -> fx.GraphModule:
    """A GraphModule that makes its code when it is asked for (2.11-2.13): most are rewritten before they run."""
    return _LazyGraphModule(root, graph, class_name)


def compiled_forward(module: nn.Module) -> Callable[..., Any]:
    """A module's forward; a graph's is that of its code, and not one that asks first whether there is any."""
    if isinstance(module, _LazyGraphModule):
        module.real_recompile()
    return module.forward


def lacks_compiler(error: BaseException) -> bool:
    """Whether ``torch.compile`` failed because there is no C++ compiler (2.11-2.13: ``InvalidCxxCompiler``)."""
    return "InvalidCxxCompiler" in f"{type(error).__name__} {error}"


def graphs_compiled() -> int:
    """How many graphs ``torch.compile`` has made in this process (2.11-2.13: ``counters`` of dynamo's utils)."""
    utils: Any = sys.modules.get("torch._dynamo.utils")
    return 0 if utils is None else int(utils.counters["aot_autograd"]["total"])


def outside_compiled_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which ``torch.compile`` calls rather than traces (2.11-2.13: ``_disable_dynamo``).

    ``torch.compiler.disable`` does the same, but imports dynamo at once, which takes seconds.
    """
    module: Any = torch
    disabled: Callable[..., Any] = module._disable_dynamo(function)
    return disabled


def is_compiled(module: nn.Module) -> bool:
    """Whether ``torch.compile`` made the module; asked by name, since importing dynamo takes seconds."""
    return type(module).__name__ == "OptimizedModule" and type(module).__module__.startswith("torch._dynamo")


RANGE_CHECKS = (torch.ops.aten.sym_constrain_range.default, torch.ops.aten.sym_constrain_range_for_size.default)


def is_grad_region(target: Any) -> bool:
    """Whether a call in an exported graph stands for operations under ``no_grad()`` (2.11-2.13)."""
    return getattr(target, "__name__", "") == "wrap_with_set_grad_enabled"


def size_expression(size: Any) -> Any:
    """A size of an exported program: an int, or sympy's expression for a symbolic one (2.11-2.13)."""
    if not isinstance(size, torch.SymInt):
        return int(size)
    expression = size.node.expr
    return int(expression) if expression.is_Integer else expression


def size_guards(shapes: Iterable[Sequence[Any]]) -> Sequence[Any]:
    """What torch.export found out about symbolic sizes, as sympy's relations over those that are free."""
    environments = {id(s.node.shape_env): s.node.shape_env for shape in shapes for s in shape if _is_free(s)}
    found = [environment.replace(guard.expr) for environment in environments.values() for guard in environment.guards]
    return [relation for relation in found if relation.free_symbols]


def _is_free(size: Any) -> bool:
    return isinstance(size, torch.SymInt) and not size.node.expr.is_Integer


@contextmanager
def recurrent_layers_in_dynamo() -> Iterator[None]:
    """Within this block dynamo takes recurrent layers (2.11-2.13: a setting that is off at first)."""
    config: Any = importlib.import_module("torch._dynamo.config")
    if not hasattr(config, "allow_rnn"):
        yield
        return
    with config.patch(allow_rnn=True):
        yield
