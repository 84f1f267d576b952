"""Predicts one step from the graph document: when each operation computes, when each bucket travels.

The model is the usual one of latency and bandwidth. An operation takes as long as its FLOPs or the
bytes that it reads and writes, whichever is longer; backward costs one forward for the gradient of
the input and one for that of the parameters, and one more where it computes the forward again
(activation checkpointing). A bucket may leave when the backward of all users of
its parameters is done; a ring all-reduce of ``n`` ranks moves ``2 (n - 1) / n`` times its bytes, and
buckets travel one after the other. Optimizer, loss and data loading are not in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autopar.view.operations import Operation, operations
from autopar.view.rates import Rates

__all__ = ["Computation", "Step", "Transfer", "predict"]

_FREE = {
    "chunk", "contiguous", "detach", "dim", "expand", "expand_as", "flatten", "getitem", "movedim", "narrow", "numel",
    "permute", "reshape", "select", "size", "split", "squeeze", "swapaxes", "t", "transpose", "unbind", "unflatten",
    "unsqueeze", "view", "view_as",
}  # fmt: skip
"""Views, as a rule: they read and write no elements."""


@dataclass(frozen=True, slots=True)
class Computation:
    """Forward or backward of one operation; times are in seconds from the beginning of the step."""

    operation: Operation
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Transfer:
    """The all-reduce of one bucket.

    Attributes:
        bucket: its index.
        nbytes: bytes of its gradients.
        ready: when its gradients are complete.
        start, end: when it is on the wire.
        last: the operation whose backward completes it; None where no operation uses its parameters.
    """

    bucket: int
    nbytes: int
    ready: float
    start: float
    end: float
    last: Operation | None


@dataclass(frozen=True, slots=True)
class Step:
    """One predicted step of one rank; all ranks are alike.

    Attributes:
        ranks: number of ranks it was predicted for.
        forward, backward: in the order in which they run.
        transfers: in launch order.
        turn: when forward ends and backward begins.
        computed: when backward ends.
    """

    ranks: int
    forward: tuple[Computation, ...]
    backward: tuple[Computation, ...]
    transfers: tuple[Transfer, ...]
    turn: float
    computed: float

    @property
    def end(self) -> float:
        """When everything is over."""
        return max([self.computed, *(one.end for one in self.transfers)])

    @property
    def exposed(self) -> float:
        """Seconds at the end in which nothing is computed."""
        return self.end - self.computed

    @property
    def travelling(self) -> float:
        """Seconds in which something is on the wire."""
        return sum(one.end - one.start for one in self.transfers)


def predict(document: Mapping[str, Any], run: Sequence[Operation] | None = None) -> Step:
    """The step that a document's ``after`` graph makes, by the document's rates.

    Args:
        document: see ``autopar.view.graph_json``; where nobody said how many ranks, two are assumed.
        run: its operations, where they are there already.
    """
    rates = Rates.from_json(document["rates"])
    ranks = document["world_size"] or 2
    read = _bytes_read(document)
    computing = [
        one
        for one in (operations(document) if run is None else run)
        if not one.sync and one.node["op"] != "placeholder"
    ]
    forward, now = [], 0.0
    seconds = [_seconds(one, read[one.node["name"]], rates) for one in computing]
    for one, taken in zip(computing, seconds, strict=True):
        forward.append(Computation(one, now, now + taken))
        now += taken
    turn = now
    backward = []
    for one, taken, passes in reversed(list(zip(computing, seconds, _passes(computing), strict=True))):
        if passes:
            backward.append(Computation(one, now, now + taken * passes))
            now += taken * passes
    return Step(ranks, tuple(forward), tuple(backward), _transfers(document, backward, ranks, rates, now), turn, now)


def _transfers(
    document: Mapping[str, Any], backward: Sequence[Computation], ranks: int, rates: Rates, computed: float
) -> tuple[Transfer, ...]:
    last = {bucket: one for one in backward for bucket in one.operation.buckets}  # the latest user wins
    free = 0.0
    found = []
    for bucket in (document["plan"] or {"buckets": ()})["buckets"]:
        user = last.get(bucket["index"])
        ready = user.end if user is not None else computed
        start = max(ready, free)
        moved = bucket["nbytes"] * 2 * (ranks - 1) / ranks
        free = start + (rates.message + moved / rates.link if ranks > 1 else 0.0)
        last_user = None if user is None else user.operation
        found.append(Transfer(bucket["index"], bucket["nbytes"], ready, start, free, last_user))
    return tuple(found)


def _bytes_read(document: Mapping[str, Any]) -> dict[str, int]:
    size = {node["name"]: node["bytes"] for node in document["after"]["nodes"]}
    read = dict.fromkeys(size, 0)
    for source, target in document["after"]["edges"]:
        read[target] += size[source]
    return read


def _seconds(operation: Operation, read: int, rates: Rates) -> float:
    node = operation.node
    if str(node["target"]).rpartition(".")[2] in _FREE:
        return rates.operation
    moved = read + node["bytes"] + (node["param_bytes"] if node["op"] == "call_module" else 0)
    longer: float = max(node["flops"] / rates.flops, moved / rates.memory)
    return rates.operation + longer


def _passes(computing: Sequence[Operation]) -> list[int]:
    """How many times its forward each operation costs in backward."""
    found, differentiated = [], False
    for one in computing:
        trained = one.param_bytes > 0
        products = bool(one.node["flops"]) and not trained  # of two activations, as in attention
        costs = trained + differentiated * (2 if products else 1)
        found.append(costs + (1 if costs and one.recomputed else 0))
        differentiated = differentiated or trained
    return found
