"""A drop-in for ``torch.nn.parallel.DistributedDataParallel`` that runs on autopar's ``ddp``."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from autopar import compat
from autopar.attach import Attachment
from autopar.nn.arguments import buffers_to_sync, check_module, check_parameters, device_index, pick_group, take_over
from autopar.nn.comm_hooks import builtin_hook, check_hook
from autopar.nn.graph_checks import GraphChecks
from autopar.nn.ignored import ignored_names
from autopar.nn.inner_call import call_inside, moved
from autopar.nn.joining import JoinsUnevenInputs
from autopar.nn.mixed_precision import LowPrecision
from autopar.nn.torch_internals import TorchInternals
from autopar.partitioner.plan import Plan
from autopar.runtime.comm_hook import CommHook
from autopar.strategies.ddp import DDP

__all__ = ["DistributedDataParallel"]

_MIB = 1024 * 1024


class DistributedDataParallel(nn.Module, JoinsUnevenInputs, TorchInternals):
    """Wraps a module so that its gradients are averaged over the ranks in backward.

    Takes torch's arguments. The wrapped module stays as it is, under ``.module``; state dicts have
    the ``module.`` prefix. The forward is captured at the first call. Accepted without effect:
    ``gradient_as_bucket_view`` (gradients always are views), ``batched_grad_copy`` (they are always
    copied together), ``check_reduction``, and the delayed all-reduce (those parameters travel in the
    buckets of all others).

    Args:
        module: the module to train; its parameters are on one device.
        device_ids: None, or the one CUDA device that inputs are moved to.
        output_device: accepted where ``device_ids`` is; outputs stay where they are computed.
        dim: accepted as torch does; a rank's batch is never split.
        broadcast_buffers: deprecated in favour of ``forward_sync_buffers``.
        init_sync: compare the modules and copy rank 0's values at construction.
        process_group: the ranks; None is the default group.
        bucket_cap_mb: size at which a bucket is closed, in MiB; None is 25 with a first bucket of 1.
        find_unused_parameters: allow parameters without a gradient. They are known from the graph; this
            only decides whether the forward after such a backward is refused, as torch does.
        static_graph: refuse changes in which parameters get gradients.
        delay_all_reduce_named_params, param_to_hook_all_reduce: to be given together.
        mixed_precision: torch's ``_MixedPrecision``: forward and backward run in its dtypes, and gradients
            are summed in its ``reduce_dtype``; without one, in the parameters' own.
        device_mesh: a one-dimensional mesh in place of ``process_group``.
        skip_all_reduce_unused_params: leave parameters that the first call does not use out of the
            buckets; a gradient for one of them is an error then.
        bucket_cap_mb_list: a size for each bucket, in MiB.
        forward_sync_buffers: keep buffers those of rank 0; None is True.

    Raises:
        TypeError: ``module`` is no module.
        ValueError: no process group, a negative cap, or ``device_ids`` that do not fit the module.
        RuntimeError: nothing to train, lazy parameters, or both ``process_group`` and ``device_mesh``.
        RankMismatchError: the ranks hold different modules; raised alike on all of them.
    """

    def __init__(
        self,
        module: nn.Module,
        device_ids: Sequence[int | torch.device] | None = None,
        output_device: int | torch.device | None = None,
        dim: int = 0,
        broadcast_buffers: bool | None = None,
        init_sync: bool = True,
        process_group: dist.ProcessGroup | None = None,
        bucket_cap_mb: float | None = None,
        find_unused_parameters: bool = False,
        check_reduction: bool = False,
        gradient_as_bucket_view: bool = False,
        static_graph: bool = False,
        delay_all_reduce_named_params: Iterable[tuple[str, nn.Parameter]] | None = None,
        param_to_hook_all_reduce: nn.Parameter | None = None,
        mixed_precision: Any = None,
        device_mesh: DeviceMesh | None = None,
        skip_all_reduce_unused_params: bool = False,
        bucket_cap_mb_list: Sequence[float] | None = None,
        batched_grad_copy: bool = False,
        forward_sync_buffers: bool | None = None,
    ) -> None:
        super().__init__()
        JoinsUnevenInputs.__init__(self)
        check_module(module, DistributedDataParallel, nn.parallel.DistributedDataParallel)
        if (delay_all_reduce_named_params is None) != (param_to_hook_all_reduce is None):
            raise ValueError(
                "delay_all_reduce_named_params and param_to_hook_all_reduce need to be set at the same time."
            )
        for cap in (bucket_cap_mb or 0, *(bucket_cap_mb_list or ())):
            if cap < 0:
                raise ValueError(f"A bucket cap of {cap} MiB was given; it must be 0 or more.")
        if check_reduction:
            warnings.warn("check_reduction is deprecated and has no effect.", FutureWarning, stacklevel=2)
        take_over(module)
        self.process_group = pick_group(process_group, device_mesh)
        self.device_mesh = device_mesh
        self.parameters_to_ignore = ignored_names(module)
        check_parameters(module, self.parameters_to_ignore)
        self.device_ids = device_index(module, device_ids, output_device)
        self.output_device = None if self.device_ids is None else output_device or self.device_ids[0]
        self.module, self.dim = module, dim
        self.device = next(iter(module.parameters())).device
        self.forward_sync_buffers, init_sync_buffers = buffers_to_sync(broadcast_buffers, forward_sync_buffers)
        self.init_sync, self.find_unused_parameters = init_sync, find_unused_parameters
        self.gradient_as_bucket_view, self.batched_grad_copy = gradient_as_bucket_view, batched_grad_copy
        self.skip_all_reduce_unused_params = skip_all_reduce_unused_params
        self.bucket_bytes_cap_list = [int(cap * _MIB) for cap in bucket_cap_mb_list or ()]
        self.mixed_precision = mixed_precision
        runs: nn.Module = module
        if mixed_precision is not None:
            runs = LowPrecision(module, mixed_precision, self.parameters_to_ignore)
        prefix = "" if runs is module else "module."
        ignored = {prefix + name for name in self.parameters_to_ignore}
        self.require_backward_grad_sync = True
        self.static_graph = False
        self.error = ""
        self._checks = GraphChecks(
            [name for name, p in runs.named_parameters() if p.requires_grad and name not in ignored],
            find_unused=find_unused_parameters,
            rank=dist.get_rank(self.process_group),
        )
        self._attachment = Attachment(
            DDP(
                bucket_cap_mb=25.0 if bucket_cap_mb is None else bucket_cap_mb,
                first_bucket_mb=1.0 if bucket_cap_mb is None else bucket_cap_mb,
                bucket_caps_mb=tuple(bucket_cap_mb_list or ()),
                broadcast_buffers=self.forward_sync_buffers,
                process_group=None if process_group is None and device_mesh is None else self.process_group,
                init_sync=init_sync,
                init_sync_buffers=init_sync_buffers,
                ignore=tuple(sorted(ignored)),
                dynamic=(find_unused_parameters or static_graph) and not skip_all_reduce_unused_params,
                all_buffers=True,
                reduce_dtype=None if mixed_precision is None else mixed_precision.reduce_dtype,
            )
        )
        self._attachment.model = runs
        if static_graph:
            self._set_static_graph()
        self.executor()

    # what runs ------------------------------------------------------------------------------

    @property
    def strategy(self) -> DDP:
        """The options that it runs with."""
        assert isinstance(self._attachment.strategy, DDP)
        return self._attachment.strategy

    @property
    def plan(self) -> Plan | None:
        """The buckets; None before the first training forward."""
        engine = self.executor().engine
        return None if engine is None else engine.plan

    @property
    def iteration(self) -> int:
        """Synchronised backwards so far."""
        engine = self.executor().engine
        return 0 if engine is None else engine.steps

    @property
    def unused_bytes(self) -> int:
        """Bytes of the parameters that got no gradient in the last synchronised backward of this rank."""
        assert self._attachment.model is not None
        sizes = {name: parameter.nbytes for name, parameter in self._attachment.model.named_parameters()}
        return sum(sizes[name] for name in self._checks.unused)

    @property
    def broadcast_buffers(self) -> bool:
        """The old name of ``forward_sync_buffers``."""
        return self.forward_sync_buffers

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """Runs the wrapped module on this rank's inputs."""
        if torch.compiler.is_compiling():
            return _uncompiled_forward(self, inputs, kwargs)
        return self._forward(inputs, kwargs)

    def _forward(self, inputs: Any, kwargs: Any) -> Any:
        executor = self.executor()
        executor.synchronise = self.require_backward_grad_sync
        if executor.synchronise and torch.is_grad_enabled():
            with self._recorded():
                self._checks.before_forward()
        executor.at_backward_end = self._after_backward
        self.announce()
        if self.device_ids is not None:
            inputs, kwargs = moved((inputs, kwargs), torch.device("cuda", self.device_ids[0]))
        if self.mixed_precision is not None:  # which calls the module itself
            return self._attachment.run(inputs, kwargs)
        return call_inside(self.module, self._attachment, inputs, kwargs)

    def _after_backward(self, unused: list[str]) -> None:
        plan = self.plan
        local = [] if plan is None else [p.name for p in plan.local if p.name not in self.strategy.ignore]
        with self._recorded(), torch.profiler.record_function("search_unused_parameters"):
            self._checks.after_backward([*unused, *local])

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Within this block backward only adds to the local ``.grad``; the forward must be inside."""
        before, self.require_backward_grad_sync = self.require_backward_grad_sync, False
        try:
            yield
        finally:
            self.require_backward_grad_sync = before

    # hooks, uneven inputs -------------------------------------------------------------------

    def register_comm_hook(self, state: object, hook: Callable[..., Any]) -> None:
        """Lets a function reduce the gradients of each bucket, as ``autopar.runtime.comm_hook`` describes.

        Raises:
            TypeError, ValueError: it is no communication hook.
            RuntimeError: there is one already.
        """
        with self._recorded():
            check_hook(hook)
            self._set_comm_hook(CommHook(state, hook))

    def _register_builtin_comm_hook(self, comm_hook_type: Any) -> None:
        hook = builtin_hook(comm_hook_type)
        self._set_comm_hook(CommHook(self.process_group, hook, label=str(comm_hook_type)))

    def _set_comm_hook(self, hook: CommHook) -> None:
        if self.strategy.comm_hook is not None:
            raise RuntimeError(f"A communication hook can be registered once; {self.strategy.comm_hook.name} is.")
        self._attachment.strategy = dataclasses.replace(self.strategy, comm_hook=hook)
        executor = self.executor()
        if executor.engine is None:
            executor.comm_hook = hook
        else:  # other messages need other buckets: the next forward makes them
            self._attachment.invalidate()

    # torch's other methods ------------------------------------------------------------------

    def _set_static_graph(self) -> None:
        with self._recorded():
            if self.iteration:
                raise RuntimeError("_set_static_graph() should be called before training loop starts.")
        self.static_graph = self._checks.static = True

    @contextmanager
    def _recorded(self) -> Iterator[None]:
        """Keeps the text of an error for the logging data."""
        try:
            yield
        except Exception as error:
            self.error = str(error)
            raise

    def _remove_autograd_hooks(self) -> None:
        self._attachment.invalidate()

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> DistributedDataParallel:
        super()._apply(fn, recurse)
        self._attachment.invalidate()
        return self

    def __getstate__(self) -> dict[str, Any]:
        if self.process_group is not dist.group.WORLD:
            raise RuntimeError(
                "A DistributedDataParallel with a process group of its own cannot be pickled or copied: "
                "the group exists in this run only. Pickle .module instead."
            )
        state = {name: value for name, value in vars(self).items() if name not in ("process_group", "device_mesh")}
        plain = Attachment(dataclasses.replace(self.strategy, comm_hook=None))
        return {**state, "_attachment": plain}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.process_group, self.device_mesh = pick_group(None, None), None
        if self.mixed_precision is None:
            self._attachment.model = self.module
        else:
            self._attachment.model = LowPrecision(self.module, self.mixed_precision, self.parameters_to_ignore)


@compat.outside_compiled_code
def _uncompiled_forward(ddp: DistributedDataParallel, inputs: Any, kwargs: Any) -> Any:
    return ddp._forward(inputs, kwargs)
