"""Predicts one step: when each operation computes, when each bucket is ready, when it travels.

The model is the usual one of latency and bandwidth. An operation takes as long as its FLOPs or the
bytes that it reads and writes, whichever is longer; backward costs one forward for the gradient of
the input and one for that of the parameters, and one more where it computes the forward again
(activation checkpointing). A bucket leaves when the backward of all users of its
parameters is done, and buckets travel one after the other. What an all-reduce takes of the rank's own
time (``Rates.overlap``) delays what is computed after its start. Optimizer, loss and data loading
are not in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from autopar.partitioner.rates import Rates

__all__ = ["Message", "OperationCost", "Timeline", "Travel", "play", "ready_times"]

_FREE = {
    "chunk", "contiguous", "detach", "dim", "expand", "expand_as", "flatten", "getitem", "movedim", "narrow", "numel",
    "permute", "reshape", "select", "size", "split", "squeeze", "swapaxes", "t", "transpose", "unbind", "unflatten",
    "unsqueeze", "view", "view_as",
}  # fmt: skip
"""Views, as a rule: they read and write no elements."""


class OperationCost(NamedTuple):
    """What decides how long an operation takes.

    Attributes:
        name: of its function or method, such as ``"linear"``.
        flops: of one forward.
        nbytes: that it reads and writes.
        trained: whether it uses trainable parameters.
        recomputed: whether backward computes it again (activation checkpointing).
    """

    name: str
    flops: int
    nbytes: int
    trained: bool
    recomputed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One bucket: its bytes, and the place of the operation whose backward completes it; None where there is none."""

    nbytes: int
    last: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Travel:
    """When a bucket's gradients are complete, and when it is on the wire, in seconds from the step's beginning."""

    ready: float
    start: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """One predicted step of one rank; all ranks are alike. Times are in seconds from its beginning.

    Attributes:
        forward: start and end of each operation.
        backward: the operations that have one, by place, in the order in which they run, with start and end.
        travels: of the messages, in their order.
        turn: when forward ends and backward begins.
        computed: when backward ends.
    """

    forward: tuple[tuple[float, float], ...]
    backward: tuple[tuple[int, float, float], ...]
    travels: tuple[Travel, ...]
    turn: float
    computed: float

    @property
    def end(self) -> float:
        """When everything is over."""
        return max(self.computed, self.travels[-1].end) if self.travels else self.computed


def play(costs: Sequence[OperationCost], messages: Sequence[Message], rates: Rates, *, ranks: int) -> Timeline:
    """The step of these operations, with these messages in this order.

    Example:
        >>> rates = Rates(flops=1.0, memory=1e9, operation=1e-9, link=4.0, message=1e-9)
        >>> linear = OperationCost(name="linear", flops=1, nbytes=0, trained=True)
        >>> step = play([linear, linear], [Message(nbytes=4, last=1), Message(nbytes=4, last=0)], rates, ranks=2)
        >>> [round(one.ready) for one in step.travels], round(step.end)
        ([4, 5], 6)
    """
    seconds = [_seconds(cost, rates) for cost in costs]
    forward, now = [], 0.0
    for taken in seconds:
        forward.append((now, now + taken))
        now += taken
    turn = now
    waiting = deque(messages)
    travels: list[Travel] = []
    backward = []
    passed: set[int | None] = set()
    free = 0.0
    for place, passes in reversed(list(enumerate(_passes(costs)))):
        if passes:
            backward.append((place, now, now + seconds[place] * passes))
            now += seconds[place] * passes
        passed.add(place)
        while waiting and waiting[0].last in passed:
            now, free = _send(waiting.popleft(), now, free, travels, rates, ranks)
    for message in waiting:
        now, free = _send(message, now, free, travels, rates, ranks)
    return Timeline(forward=tuple(forward), backward=tuple(backward), travels=tuple(travels), turn=turn, computed=now)


def ready_times(costs: Sequence[OperationCost], rates: Rates) -> tuple[list[float], float]:
    """When the backward of each operation ends if nothing travels, and when backward as a whole does."""
    quiet = play(costs, (), rates, ranks=1)
    ends = [quiet.computed] * len(costs)
    for place, _, end in quiet.backward:
        ends[place] = end
    return ends, quiet.computed


def _send(
    message: Message, now: float, free: float, travels: list[Travel], rates: Rates, ranks: int
) -> tuple[float, float]:
    start = max(now, free)
    taken = rates.all_reduce(message.nbytes, ranks)
    travels.append(Travel(ready=now, start=start, end=start + taken))
    return now + (1.0 - rates.overlap) * taken, start + taken


def _seconds(cost: OperationCost, rates: Rates) -> float:
    if cost.name in _FREE:
        return rates.operation
    return rates.operation + max(cost.flops / rates.flops, cost.nbytes / rates.memory)


def _passes(costs: Sequence[OperationCost]) -> list[int]:
    """How many times its forward each operation costs in backward."""
    found, differentiated = [], False
    for cost in costs:
        products = bool(cost.flops) and not cost.trained  # of two activations, as in attention
        passes = cost.trained + differentiated * (2 if products else 1)
        found.append(passes + (1 if passes and cost.recomputed else 0))
        differentiated = differentiated or cost.trained
    return found
