"""What the engine needs of a backend; torch.distributed as one, with errors that say what was being sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
import torch.distributed as dist

from autopar.errors import RankLostError
from autopar.lost_ranks import lost
from autopar.runtime.group import Group
from autopar.runtime.heartbeats import StoreHeartbeats

__all__ = ["Collectives", "LoneCollectives", "TorchCollectives", "Work", "reporting"]


class Work(Protocol):
    """A collective on its way."""

    def wait(self) -> Any:
        """Returns when the result may be used (CPU) or is ordered before what follows (CUDA)."""
        ...


class Collectives(Protocol):
    """What the engine needs of a backend.

    Attributes:
        world_size: how many ranks there are.
        shares_memory: whether ``all_reduce`` scales on the way, at no cost, and spares copies only to
            tensors that ``empty`` made.
    """

    world_size: int
    shares_memory: bool

    def empty(self, numel: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """An uninitialised tensor of shape (numel,), where ``all_reduce`` likes it best."""
        ...

    def all_reduce(self, flat: torch.Tensor, label: str, scale: float = 1.0) -> Work:
        """Starts summing ``flat * scale`` over all ranks, in place; ``label`` says what it carries."""
        ...

    def broadcast(self, flat: torch.Tensor, label: str) -> Work:
        """Starts copying rank 0's ``flat`` to all ranks, in place."""
        ...

    def all_gather(self, rows: torch.Tensor, flat: torch.Tensor, label: str) -> Work:
        """Starts copying each rank's ``flat`` into its row of ``rows``, of shape (world size, numel)."""
        ...

    def close(self) -> None:
        """Waits for what is on its way and frees what belongs to this backend alone."""
        ...


class TorchCollectives:
    """All-reduce and broadcast through c10d (gloo, nccl, or whatever the group has).

    Args:
        group: the ranks; a group without a handle is one process, which needs no collectives.
        heartbeats: told of every collective, and asked where one fails.
    """

    shares_memory = False

    def __init__(self, group: Group, heartbeats: StoreHeartbeats | None = None) -> None:
        assert group.handle is not None
        self.group, self.world_size, self._heartbeats = group, group.world_size, heartbeats
        self._source = dist.get_global_rank(group.handle, 0)

    def empty(self, numel: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """An uninitialised tensor of shape (numel,)."""
        return torch.empty(numel, dtype=dtype, device=device)

    def all_reduce(self, flat: torch.Tensor, label: str, scale: float = 1.0) -> _LabelledWork:
        """Starts an all-reduce (sum) of ``flat`` times ``scale``, in place."""
        if scale != 1.0:
            flat.mul_(scale)
        with self._sending(label):
            work = dist.all_reduce(flat, group=self.group.handle, async_op=True)
        return _LabelledWork(work, self.group, label, self._heartbeats)

    def broadcast(self, flat: torch.Tensor, label: str) -> _LabelledWork:
        """Starts a broadcast of rank 0's ``flat``, in place."""
        with self._sending(label):
            work = dist.broadcast(flat, self._source, group=self.group.handle, async_op=True)
        return _LabelledWork(work, self.group, label, self._heartbeats)

    def all_gather(self, rows: torch.Tensor, flat: torch.Tensor, label: str) -> _LabelledWork:
        """Starts an all-gather of the ranks' ``flat`` into the rows of ``rows``."""
        with self._sending(label):
            work = dist.all_gather(list(rows), flat, group=self.group.handle, async_op=True)
        return _LabelledWork(work, self.group, label, self._heartbeats)

    def close(self) -> None:
        """The process group stays: others may use it."""

    def _sending(self, label: str) -> AbstractContextManager[None]:
        if self._heartbeats is not None:
            self._heartbeats.beat(label)
        return reporting(self.group, label, self._heartbeats)


class LoneCollectives:
    """One rank's: a sum over itself alone."""

    world_size, shares_memory = 1, False

    def empty(self, numel: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """An uninitialised tensor of shape (numel,)."""
        return torch.empty(numel, dtype=dtype, device=device)

    def all_reduce(self, flat: torch.Tensor, label: str, scale: float = 1.0) -> Work:
        """Multiplies ``flat`` by ``scale``."""
        if scale != 1.0:
            flat.mul_(scale)
        return _Done()

    def broadcast(self, flat: torch.Tensor, label: str) -> Work:
        """Leaves ``flat`` as it is."""
        return _Done()

    def all_gather(self, rows: torch.Tensor, flat: torch.Tensor, label: str) -> Work:
        """Copies ``flat`` into the one row."""
        rows[0].copy_(flat)
        return _Done()

    def close(self) -> None:
        """There is nothing to end."""


class _Done:
    def wait(self) -> None:
        pass


class _LabelledWork:
    __slots__ = ("_group", "_heartbeats", "_label", "_work")

    def __init__(self, work: Any, group: Group, label: str, heartbeats: StoreHeartbeats | None) -> None:
        self._work, self._group, self._label, self._heartbeats = work, group, label, heartbeats

    def wait(self) -> None:
        try:
            self._work.wait()
        except RuntimeError as error:
            raise _failed(self._group, self._label, error, self._heartbeats) from error

    def when_done(self, callback: Callable[[], None]) -> None:
        """Calls back once the collective is over, from whatever thread sees it first."""
        self._work.get_future().add_done_callback(lambda _: callback())


@contextmanager
def reporting(group: Group, label: str, heartbeats: StoreHeartbeats | None = None) -> Iterator[None]:
    """Turns what a backend raises within the block into an error that says what was being sent.

    Raises:
        RankLostError: naming this rank and ``label``.
    """
    try:
        yield
    except RuntimeError as error:
        raise _failed(group, label, error, heartbeats) from error


def _failed(group: Group, label: str, error: RuntimeError, heartbeats: StoreHeartbeats | None) -> RankLostError:
    known, unknown = ([], "") if heartbeats is None else (heartbeats.read(), "the ranks' store does not answer")
    return lost(group.rank, group.world_size, label, _plain_text(error), known, unknown=unknown)


def _plain_text(error: RuntimeError) -> str:
    """The first sentence of a backend's message, without the place in its source."""
    line = re.sub(r"^\[\S+:\d+\]\s*", "", str(error).strip().splitlines()[0])
    return line.split(". ", 1)[0].rstrip(".")
