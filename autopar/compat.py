"""Every private torch name that autopar uses, in one place, with the versions it was checked on.

Checked on torch 2.13.0 (CPU). Written for 2.11 to 2.13. When a name moves, mend it here.
"""

from __future__ import annotations

import importlib
import inspect
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.utils.checkpoint
from torch import fx, nn
from torch._ops import OpOverload
from torch.fx._lazy_graph_module import _LazyGraphModule
from torch.nn.parallel import distributed as torch_ddp
from torch.overrides import _pop_mode_temporarily
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

__all__ = [
    "RANGE_CHECKS",
    "GradBucket",
    "GroupWork",
    "OpOverload",
    "accumulates_into_leaves",
    "all_gather_single",
    "ambient_modes",
    "before_custom_functions",
    "checkpoint_patch",
    "checkpoint_records",
    "compiled_forward",
    "functional_collectives",
    "gloo_backend",
    "graph_module",
    "group_timeout",
    "hands_gradient_to_caller",
    "has_global_module_hooks",
    "has_module_hooks",
    "inside_torch_ddp",
    "is_grad_region",
    "is_parametrized",
    "lacks_compiler",
    "module_hooks",
    "on_backward_end",
    "original_class",
    "prefix_store",
    "recurrent_layers_in_dynamo",
    "reduce_scatter_single",
    "saves_through_hooks",
    "set_cpu_backend",
    "set_launcher_store",
    "size_expression",
    "size_guards",
    "storage_references",
    "tree_flatten",
    "tree_unflatten",
    "unflatten_like",
]


# What a communication hook is annotated to take (2.11-2.13).
GradBucket: Any = getattr(torch.distributed, "GradBucket", object)
# What c10d's collectives return; a subclass in Python may stand for it (2.11-2.13).
GroupWork: Any = getattr(torch.distributed, "Work", object)


def graph_module(root: nn.Module | dict[str, Any], graph: fx.Graph, class_name: str) -> fx.GraphModule:
    """A GraphModule that makes its code when it is asked for (2.11-2.13): most are rewritten before they run."""
    return _LazyGraphModule(root, graph, class_name)


def compiled_forward(module: nn.Module) -> Callable[..., Any]:
    """A module's forward; a graph's is that of its code, and not one that asks first whether there is any."""
    if isinstance(module, _LazyGraphModule):
        module.real_recompile()
    return module.forward


def tree_flatten(tree: Any) -> tuple[list[Any], Any]:
    """Leaves of a nested structure and its spec (2.11-2.13: ``torch.utils._pytree``)."""
    leaves, spec = pytree.tree_flatten(tree)
    return leaves, spec


def tree_unflatten(leaves: Sequence[Any], spec: Any) -> Any:
    """The nested structure again, from its leaves and spec."""
    return pytree.tree_unflatten(list(leaves), spec)


def tree_map(function: Callable[[Any], Any], tree: Any) -> Any:
    """The structure with ``function`` applied to every leaf."""
    return pytree.tree_map(function, tree)


def version(tensor: torch.Tensor) -> int:
    """How often the tensor was written to in place; inference tensors do not count."""
    return 0 if tensor.is_inference() else tensor._version


def lacks_compiler(error: BaseException) -> bool:
    """Whether ``torch.compile`` failed because there is no C++ compiler (2.11-2.13: ``InvalidCxxCompiler``)."""
    return "InvalidCxxCompiler" in f"{type(error).__name__} {error}"


def ambient_modes() -> tuple[Any, ...]:
    """What besides inputs and grad mode decides what an operation does."""
    cpu, cuda = torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")
    return (
        torch.is_inference_mode_enabled(),
        torch.get_autocast_dtype("cpu") if cpu else None,
        torch.get_autocast_dtype("cuda") if cuda else None,
    )


def unflatten_like(flat: torch.Tensor, like: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    """Views into ``flat``, one for each tensor of ``like``, made by one call into C++.

    The views carry no Python reference of ours, so autograd's AccumulateGrad may keep them as
    ``.grad`` without a copy.
    """
    views: Sequence[torch.Tensor] = torch._C._nn.unflatten_dense_tensors(flat, list(like))
    return views


def storage_references(tensor: torch.Tensor) -> int:
    """How many tensors (and other owners) share the tensor's storage."""
    count: int = torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)
    return count


def distributed_debug() -> bool:
    """Whether TORCH_DISTRIBUTED_DEBUG asks for more text (2.11-2.13: ``get_debug_level``)."""
    module: Any = torch.distributed
    return bool(module.get_debug_level() != module.DebugLevel.OFF)


def mark_low_precision(parameter: nn.Parameter, dtype: torch.dtype) -> None:
    """Gives a parameter what torch's DDP hangs on one that runs in another dtype (2.11-2.13).

    Outside of a forward the low-precision copy holds no values there, either.
    """
    marked: Any = parameter
    marked._fp_param = parameter.data
    marked._mp_param = torch.empty(0, dtype=dtype, device=parameter.device)


def group_timeout(group: Any) -> float | None:
    """Seconds that the ranks of a process group wait for each other; None where it does not say."""
    for device in ("cpu", "cuda"):
        try:
            limit = group._get_backend(torch.device(device)).options._timeout
        except (RuntimeError, AttributeError):  # no such device, or a backend without options
            continue
        return float(limit.total_seconds())
    return None


def gloo_backend(store: Any, rank: int, size: int, timeout: timedelta) -> Any:
    """A gloo backend without a process group around it (2.11-2.13: ``ProcessGroupGloo``)."""
    return torch.distributed.ProcessGroupGloo(store, rank, size, timeout=timeout)


def functional_collectives() -> Any:
    """The module of collectives that are operations, which compilers see (2.11-2.13)."""
    return importlib.import_module("torch.distributed._functional_collectives")


def prefix_store(prefix: str, store: Any) -> Any:
    """A store of its own within another."""
    return torch.distributed.PrefixStore(prefix, store)  # type: ignore[attr-defined]


def set_cpu_backend(group: Any, backend: Any) -> None:
    """Lets a process group pass on to ``backend`` what it does not do itself."""
    kind = torch.distributed.ProcessGroup.BackendType.CUSTOM
    group._register_backend(torch.device("cpu"), kind, backend)
    group._set_default_backend(kind)


def all_gather_single(backend: Any, output: torch.Tensor, input: torch.Tensor, opts: Any) -> Any:
    """All-gather into one tensor (2.11, 2.12: ``_allgather_base``)."""
    method = getattr(backend, "all_gather_single", None) or backend._allgather_base
    return method(output, input, opts)


def reduce_scatter_single(backend: Any, output: torch.Tensor, input: torch.Tensor, opts: Any) -> Any:
    """Reduce-scatter of one tensor (2.11, 2.12: ``_reduce_scatter_base``)."""
    method = getattr(backend, "reduce_scatter_single", None) or backend._reduce_scatter_base
    return method(output, input, opts)


def on_backward_end(callback: Callable[[], None]) -> None:
    """Calls ``callback`` once at the end of the backward that is running now."""
    torch.autograd.Variable._execution_engine.queue_callback(callback)


def accumulates_into_leaves(accumulator: Any) -> bool:
    """Whether the running backward will add to ``.grad`` of the leaf that owns this AccumulateGrad node.

    False inside ``torch.autograd.grad``, which hands gradients to its caller instead, and where
    ``backward(inputs=...)`` leaves the parameter out.
    """
    try:
        return bool(torch._C._will_engine_execute_node(accumulator))
    except RuntimeError:  # raised for a leaf under torch.autograd.grad()
        return False


def hands_gradient_to_caller(accumulator: Any) -> bool:
    """Whether the running ``torch.autograd.grad`` was asked for the gradient of this leaf."""
    try:
        torch._C._will_engine_execute_node(accumulator)
    except RuntimeError:
        return True
    return False


def inside_torch_ddp() -> bool:
    """Whether torch's own ``DistributedDataParallel`` runs its module at this moment."""
    wrapper: Any = torch_ddp.DistributedDataParallel  # in its home: elsewhere autopar's may stand in its place
    found: bool = wrapper._active_ddp_module is not None
    return found


def outside_compiled_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which ``torch.compile`` calls rather than traces (2.11-2.13: ``_disable_dynamo``).

    ``torch.compiler.disable`` does the same, but imports dynamo at once, which takes seconds.
    """
    module: Any = torch
    disabled: Callable[..., Any] = module._disable_dynamo(function)
    return disabled


def module_hooks(module: nn.Module) -> tuple[Any, ...]:
    """The registries of what a call of the module runs besides its ``forward``."""
    return module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks


def has_module_hooks(module: nn.Module) -> bool:
    """Whether calling the module runs anything besides its ``forward``."""
    return any(module_hooks(module))


def saves_through_hooks() -> bool:
    """Whether what autograd saves goes through hooks now, as within ``torch.utils.checkpoint`` (2.11-2.13)."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def is_parametrized(module: nn.Module) -> bool:
    """Whether ``torch.nn.utils.parametrize`` computes one of the module's parameters."""
    return "parametrizations" in module._modules


def original_class(module: nn.Module) -> type[nn.Module]:
    """The user's class of a module, also where autopar has put its own in front of it."""
    found: type[nn.Module] = getattr(type(module), "_autopar_original_class", type(module))
    return found


def graph_task() -> int:
    """Identifies the backward that is running now in this thread; -1 outside of one."""
    task: int = torch._C._current_graph_task_id()
    return task


def runs_user_hooks(parameter: nn.Parameter) -> bool:
    """Whether the user has hooks on the parameter that would see its gradient during backward."""
    return bool(parameter._backward_hooks or parameter._post_accumulate_grad_hooks)


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether the tensor's elements fill its memory without gaps or overlaps, in any order of dims."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride != expected:
            return tensor.numel() == 0
        expected *= size
    return True


def replica_of_module(module: nn.Module) -> nn.Module:
    """A shallow copy without parameters that shares children, buffers and attributes with the original.

    Modules that keep parameters elsewhere as well (recurrent ones) copy that, too.
    """
    replica: nn.Module = module._replicate_for_data_parallel()
    return replica


def has_global_module_hooks() -> bool:
    """Whether somebody hooked all modules at once (``nn.modules.module.register_module_*_hook``)."""
    hooks = nn.modules.module
    return bool(
        hooks._global_forward_hooks
        or hooks._global_forward_pre_hooks
        or hooks._global_backward_hooks
        or hooks._global_backward_pre_hooks
    )


def is_compiled(module: nn.Module) -> bool:
    """Whether ``torch.compile`` made the module; asked by name, since importing dynamo takes seconds."""
    return type(module).__name__ == "OptimizedModule" and type(module).__module__.startswith("torch._dynamo")


def without_function_mode() -> AbstractContextManager[Any]:
    """Within this block the innermost torch function mode is not active."""
    return _pop_mode_temporarily()


@contextmanager
def before_custom_functions(callback: Callable[[], None]) -> Iterator[None]:
    """Within this block ``callback`` runs before every custom ``autograd.Function``.

    Also before those whose ``apply`` was bound to a name earlier, which replacing ``Function.apply``
    misses: each call asks whether the class has a ``setup_context``.
    """
    module: Any = torch.autograd.function
    original = getattr(module, "_is_setup_context_defined", None)
    if original is None:
        yield
        return

    def asked(function: Any) -> Any:
        callback()
        return original(function)

    module._is_setup_context_defined = asked
    try:
        yield
    finally:
        module._is_setup_context_defined = original


_CHECKPOINT_DEFAULTS = {
    "preserve_rng_state": True,
    "context_fn": torch.utils.checkpoint.noop_context_fn,
    "determinism_check": "default",
    "debug": False,
    "early_stop": True,
}


def checkpoint_patch(around: Callable[[dict[str, Any], AbstractContextManager[Any]], Any]) -> tuple[Any, str, Any]:
    """Owner, name and value that put ``around`` about the function of every non-reentrant checkpoint.

    ``checkpoint`` runs its function between the two halves of a generator, which it looks up in its
    module at every call (2.13).

    Args:
        around: given the settings that are not the defaults, and the checkpoint's own context, the
            context to run in instead.
    """
    module, name = torch.utils.checkpoint, "_checkpoint_without_reentrant_generator"
    original = getattr(module, name)
    signature = inspect.signature(original)

    def generator(*args: Any, **kwargs: Any) -> Iterator[None]:
        bound = signature.bind(*args, **kwargs)
        given = {name: value for name, value in bound.arguments.items() if name not in ("fn", "args", "kwargs")}
        settings = {name: value for name, value in given.items() if value != _CHECKPOINT_DEFAULTS.get(name)}
        with around(settings, contextmanager(original)(*args, **kwargs)):
            yield

    return module, name, generator


@contextmanager
def without_accumulate_hooks(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Within this block the parameters' post-accumulate-grad hooks (optimizers in backward) do not run."""
    registries = [p._post_accumulate_grad_hooks for p in parameters if p._post_accumulate_grad_hooks]
    kept = [dict(registry) for registry in registries]
    for registry in registries:
        registry.clear()
    try:
        yield
    finally:
        for registry, hooks in zip(registries, kept, strict=True):
            registry.update(hooks)


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


class FlopCounter(TorchDispatchMode):
    """Counts floating-point operations with the formulas of ``torch.utils.flop_counter``.

    That module's own mode imports dynamo when it is first entered, because torch hides each dispatch
    mode from dynamo; this takes over a second on torch 2.13 and nothing here is compiled.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self._known: dict[tuple[Any, ...], int] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += self._flops(formula, args, kwargs, result)
        return result

    def _flops(self, formula: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> int:
        """What the formula says, asked once for the same shapes: torch walks through all arguments as trees for it."""
        try:
            key = (formula, *(arg.shape if isinstance(arg, torch.Tensor) else arg for arg in args), *kwargs.items())
            if key not in self._known:
                self._known[key] = int(formula(*args, **kwargs, out_val=result))
            return self._known[key]
        except TypeError:  # a list of arguments has no hash
            return int(formula(*args, **kwargs, out_val=result))


def has_running_statistics(module: nn.Module) -> bool:
    """Whether the module is a batch or instance norm of torch's, or a subclass: forward may write its buffers."""
    return isinstance(module, nn.modules.batchnorm._NormBase)


def is_sole_owner(tensor: torch.Tensor) -> bool:
    """Whether no other tensor shares the storage, and nothing in C++ holds this tensor.

    A tensor that is a view has its base for company: a linear layer's weight gradient is the
    transpose of a product that nobody else sees.
    """
    alone = 3 if tensor._is_view() else 2  # the tensor, the storage object asked, and the base
    return tensor._use_count() == 1 and storage_references(tensor) <= alone  # type: ignore[attr-defined]


def set_launcher_store(store: Any, rendezvous: Any) -> None:
    """Lets torchrun make its stores with this class; for a process that only launches (2.11-2.13).

    Args:
        store: takes the place of ``torch.distributed.TCPStore``.
        rendezvous: the module ``torch.distributed.elastic.rendezvous.c10d_rendezvous_backend``.
    """
    rendezvous.TCPStore = store
    torch.distributed.TCPStore = store  # type: ignore[attr-defined]


def checkpoint_records(metadata: Any, filesystem: Any) -> dict[tuple[str, str], Any]:
    """What the index of a ``torch.distributed.checkpoint`` consists of, by module and name.

    Args:
        metadata: the module ``torch.distributed.checkpoint.metadata``.
        filesystem: the module ``torch.distributed.checkpoint.filesystem``.
    """
    own = [one for one in vars(metadata).values() if getattr(one, "__module__", "") == metadata.__name__]
    records = [*own, filesystem._StorageInfo, torch.serialization._get_layout, torch.Size]
    # a path's class says on which system the checkpoint was written
    paths = {(module, name): pathlib.PurePath for module in _PATH_MODULES for name in ("PosixPath", "WindowsPath")}
    return {(record.__module__, record.__qualname__): record for record in records} | paths


_PATH_MODULES = ("pathlib", "pathlib._local")  # Python 3.13 has them in the second
