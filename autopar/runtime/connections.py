"""What carries the messages of one model: each way is made when it is first needed, on all ranks at the same point."""

from __future__ import annotations

from collections.abc import Callable

import torch.distributed as dist
from torch import nn

from autopar.partitioner.rates import Rates
from autopar.runtime import side_groups
from autopar.runtime.backends import start_collectives
from autopar.runtime.collectives import Collectives, LoneCollectives, TorchCollectives
from autopar.runtime.device import device_of
from autopar.runtime.group import Group
from autopar.runtime.speeds import measured_rates

__all__ = ["Connections"]

_WORTH_MEASURING = 1 << 18  # bytes of gradients: fewer are one message, which costs its latency alone


class Connections:
    """Ways between the ranks for gradients, for graphs and for batch norms.

    Args:
        model: the user's model.
        group: the ranks.
        backend: what carries gradients: ``"auto"``, ``"shm"`` or ``"torch"``.
        measure: find out how fast the ranks compute and send before the plan is solved.
    """

    def __init__(self, model: nn.Module, group: Group, *, backend: str, measure: bool) -> None:
        self._model, self._group, self._backend, self._measure = model, group, backend, measure
        self._collectives: Collectives | None = None
        self._in_graph: dist.ProcessGroup | None = None
        self._give_back: list[Callable[[], None]] = []

    def start(self, *, hooked: bool) -> Collectives:
        """What carries the gradients.

        Args:
            hooked: a communication hook reduces them, whose messages are torch's.
        """
        if self._collectives is None and self._group.world_size == 1:
            self._collectives = LoneCollectives()
        elif self._collectives is None:
            self._collectives = start_collectives(
                self._group,
                "torch" if hooked else self._backend,
                device=device_of(self._model),
                nbytes=self._gradient_bytes(),
            )
        return self._collectives

    def rates(self, *, hooked: bool) -> Rates | None:
        """How fast the ranks are, where the plan depends on it."""
        if not self._measure or self._gradient_bytes() < _WORTH_MEASURING:
            return None
        return measured_rates(self._group, self.start(hooked=hooked), device_of(self._model))

    def in_graphs(self) -> dist.ProcessGroup | None:
        """The ranks for collectives inside a graph; through shared memory where gradients go there."""
        if self._group.world_size == 1:
            return None
        if self._in_graph is None:
            self._in_graph = self._side_group()
        return self._in_graph

    def for_norms(self, process_group: dist.ProcessGroup | None) -> Collectives:
        """A way of their own for the statistics of batch norms, among the ranks that a module names or all."""
        made = process_group or self._side_group()
        group = Group(made, dist.get_rank(made), dist.get_world_size(made), self._group.timeout)
        return TorchCollectives(group) if group.world_size > 1 else LoneCollectives()

    def close(self) -> None:
        """Waits for what is on its way, and leaves what was made here to others."""
        if self._collectives is not None:
            self._collectives.close()
        while self._give_back:
            self._give_back.pop()()
        self._in_graph = None

    def _side_group(self) -> dist.ProcessGroup:
        shared = self._collectives is not None and self._collectives.shares_memory
        taken, give_back = side_groups.take(self._group, shared=shared)
        self._give_back.append(give_back)
        return taken

    def _gradient_bytes(self) -> int:
        return sum(p.nbytes for p in self._model.parameters() if p.requires_grad)
