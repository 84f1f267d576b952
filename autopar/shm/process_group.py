"""The backend ``autopar_shm`` of torch.distributed: a thin wrapper of the communicator over gloo.

    import autopar.shm
    torch.distributed.init_process_group("autopar_shm")

All-reduce, broadcast, all-gather, reduce-scatter and barrier of dense CPU tensors go through shared
memory, called as such or as functional collectives; everything else (send, all-to-all, sparse
tensors, bitwise reductions) through a gloo group that it holds. Where the ranks cannot share memory,
everything goes through gloo, and rank 0 says so.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from autopar import compat
from autopar.errors import AutoparError
from autopar.shm.communicator import Communicator, Work
from autopar.shm.rendezvous import connect

__all__ = ["NAME", "SharedMemoryGroup", "register"]

NAME = "autopar_shm"
_ProcessGroup: Any = getattr(dist, "ProcessGroup", object)  # whose stubs differ between versions
_OPERATORS = (("sum", "SUM"), ("avg", "AVG"), ("min", "MIN"), ("max", "MAX"), ("product", "PRODUCT"))


class SharedMemoryGroup(_ProcessGroup):
    """A process group whose common collectives go through shared memory.

    Args:
        store: where the ranks find each other.
        rank: this rank.
        size: world size.
        timeout: how long a rank waits for the others.

    Attributes:
        communicator: the shared memory; None where the ranks cannot share any.
    """

    def __init__(self, store: Any, rank: int, size: int, timeout: timedelta) -> None:
        super().__init__(rank, size)
        self._gloo = compat.gloo_backend(compat.prefix_store("gloo", store), rank, size, timeout)
        # What is not overridden below, torch's own methods pass on to this backend.
        compat.set_cpu_backend(self, self._gloo)
        found = connect(rank, size, _exchange(store, rank, size), timeout=timeout.total_seconds())
        self.communicator = found if isinstance(found, Communicator) else None
        if isinstance(found, str) and rank == 0:
            warnings.warn(f"The backend {NAME} goes through gloo: {found}.", stacklevel=2)

    def getBackendName(self) -> str:
        """The name that it is registered under."""
        return NAME

    def allreduce(self, tensors: list[torch.Tensor], opts: Any) -> Any:
        """Combines one tensor over all ranks, in place."""
        op = _operator(opts.reduceOp)
        if op is None or not self._carries(tensors[0], op):
            return self._gloo.allreduce(tensors, opts)
        return self._start(lambda shared: shared.all_reduce(tensors[0], op), tensors)

    def allreduce_coalesced(self, tensors: list[torch.Tensor], opts: Any) -> Any:
        """Combines several tensors, each over all ranks (what a functional all-reduce calls)."""
        return _GroupWork([self.allreduce([tensor], opts) for tensor in tensors], tensors)

    def broadcast(self, tensors: list[torch.Tensor], opts: Any) -> Any:
        """Copies one rank's tensor to all others."""
        if not self._carries(tensors[0]):
            return self._gloo.broadcast(tensors, opts)
        return self._start(lambda shared: shared.broadcast(tensors[0], opts.rootRank), tensors)

    def allgather(self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor], opts: Any) -> Any:
        """Collects the ranks' tensors, which must be of one size (else gloo does it)."""
        if not self._carries(inputs[0]) or any(output.numel() != inputs[0].numel() for output in outputs[0]):
            return self._gloo.allgather(outputs, inputs, opts)
        return self._start(lambda shared: shared.all_gather(outputs[0], inputs[0]), outputs[0])

    def all_gather_single(self, output: torch.Tensor, input: torch.Tensor, opts: Any) -> Any:
        """Collects the ranks' tensors into one (torch 2.13's name)."""
        if not self._carries(input) or output.numel() != input.numel() * self.size():
            return compat.all_gather_single(self._gloo, output, input, opts)
        if not output.is_contiguous():
            return compat.all_gather_single(self._gloo, output, input, opts)
        parts = list(output.view(-1).chunk(self.size())) if output.numel() else [output] * self.size()
        return self._start(lambda shared: shared.all_gather(parts, input), [output])

    def all_gather_single_coalesced(self, outputs: list[torch.Tensor], inputs: list[torch.Tensor], opts: Any) -> Any:
        """The same for several tensors (what a functional all-gather calls)."""
        pairs = zip(outputs, inputs, strict=True)
        return _GroupWork([self.all_gather_single(output, input, opts) for output, input in pairs], outputs)

    _allgather_base = all_gather_single  # the same two up to torch 2.12
    allgather_into_tensor_coalesced = all_gather_single_coalesced

    def reduce_scatter(self, outputs: list[torch.Tensor], inputs: list[list[torch.Tensor]], opts: Any) -> Any:
        """Combines the ranks' lists of tensors, of which each rank gets one."""
        op = _operator(opts.reduceOp)
        same = all(tensor.numel() == outputs[0].numel() for tensor in inputs[0])
        if op is None or not same or not self._carries(outputs[0], op):
            return self._gloo.reduce_scatter(outputs, inputs, opts)
        return self._start(lambda shared: shared.reduce_scatter(outputs[0], inputs[0], op), outputs)

    def reduce_scatter_single(self, output: torch.Tensor, input: torch.Tensor, opts: Any) -> Any:
        """Combines the ranks' tensors, of which each rank gets a part (torch 2.13's name)."""
        op = _operator(opts.reduceOp)
        fits = input.numel() == output.numel() * self.size() > 0
        if op is None or not fits or not self._carries(output, op):
            return compat.reduce_scatter_single(self._gloo, output, input, opts)
        parts = list(input.reshape(-1).chunk(self.size()))
        return self._start(lambda shared: shared.reduce_scatter(output, parts, op), [output])

    def reduce_scatter_single_coalesced(
        self, outputs: list[torch.Tensor], inputs: list[torch.Tensor], opts: Any
    ) -> Any:
        """The same for several tensors (what a functional reduce-scatter calls)."""
        pairs = zip(outputs, inputs, strict=True)
        return _GroupWork([self.reduce_scatter_single(output, input, opts) for output, input in pairs], outputs)

    _reduce_scatter_base = reduce_scatter_single  # the same two up to torch 2.12
    reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced

    def barrier(self, opts: Any) -> Any:
        """Waits until all ranks have come here."""
        if self.communicator is None:
            return self._gloo.barrier(opts)
        return self._start(lambda shared: shared.barrier(), [])

    def shutdown(self) -> None:
        """Takes part no more."""
        if self.communicator is not None:
            self.communicator.close()
        super().shutdown()

    def _carries(self, tensor: torch.Tensor, op: str | None = None) -> bool:
        """Whether the tensor can go through shared memory; with an operator, also be reduced there."""
        if self.communicator is None or tensor.layout != torch.strided or tensor.device.type != "cpu":
            return False
        if op is None:
            return True
        return self.communicator.supports(tensor) and (op != "avg" or tensor.dtype.is_floating_point)

    def _start(self, collective: Callable[[Communicator], Work], result: Sequence[torch.Tensor]) -> _GroupWork:
        assert self.communicator is not None
        with _raising():
            return _GroupWork([collective(self.communicator)], result)


class _GroupWork(compat.GroupWork):
    """Collectives on their way, as torch.distributed sees them.

    Args:
        parts: what is to be waited for, in order.
        result: the tensors that are received.
    """

    def __init__(self, parts: Sequence[Any], result: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self._parts, self._result = parts, list(result)
        self._done = False

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Returns when the result is there; the group's own timeout holds."""
        if not self._done:
            with _raising():
                for part in self._parts:
                    part.wait()
            self._done = True
        return True

    def is_completed(self) -> bool:
        """Whether ``wait`` has returned."""
        return self._done

    def is_success(self) -> bool:
        """The same."""
        return self._done

    def result(self) -> list[torch.Tensor]:
        """The tensors that were received."""
        return self._result

    def get_future(self) -> torch.futures.Future[list[torch.Tensor]]:
        """A future that is complete: without a thread of its own, the work is done now.

        torch's DDP asks for it as soon as a bucket is sent, and so does not overlap on this backend.
        """
        self.wait()
        future: torch.futures.Future[list[torch.Tensor]] = torch.futures.Future()
        future.set_result(self._result)
        return future


class _raising:
    """Turns autopar's errors into those that users of torch.distributed catch."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, AutoparError):
            raise dist.DistBackendError(str(error)) from error


def register() -> None:
    """Makes the backend known to ``torch.distributed``; done when ``autopar.shm`` is imported."""
    if dist.is_available() and NAME not in dist.Backend.backend_list:
        dist.Backend.register_backend(NAME, SharedMemoryGroup, devices=["cpu"])


def _operator(reduce_op: Any) -> str | None:
    """Our name of a reduction; None for those that only gloo knows."""
    return next((name for name, theirs in _OPERATORS if reduce_op == getattr(dist.ReduceOp, theirs)), None)


def _exchange(store: Any, rank: int, size: int) -> Callable[[Any], list[Any]]:
    """Gives JSON values to all ranks, through the store."""
    count = 0

    def exchange(value: Any) -> list[Any]:
        nonlocal count
        count += 1
        store.set(f"shm/{count}/{rank}", json.dumps(value))
        return [json.loads(store.get(f"shm/{count}/{other}")) for other in range(size)]

    return exchange
