"""The predicted step of a graph document, as pictures draw it; ``partitioner/timeline.py`` has the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from autopar.partitioner.rates import Rates
from autopar.partitioner.timeline import Message, OperationCost, Timeline, play
from autopar.view.operations import Operation, operations, sent_bytes

__all__ = ["Computation", "Step", "Transfer", "predict"]


class Computation(NamedTuple):
    """Forward or backward of one operation; times are in seconds from the beginning of the step."""

    operation: Operation
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Transfer:
    """The all-reduce of one bucket.

    Attributes:
        bucket: its index.
        nbytes: bytes that a rank sends for it.
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
        computing: the operations, in the order of forward.
        played: when each of them runs, by its place.
        transfers: in launch order.
    """

    ranks: int
    computing: tuple[Operation, ...]
    played: Timeline
    transfers: tuple[Transfer, ...]

    @property
    def forward(self) -> list[Computation]:
        """The operations in the order in which they run."""
        return [Computation(one, *span) for one, span in zip(self.computing, self.played.forward, strict=True)]

    @property
    def backward(self) -> list[Computation]:
        """Those that have a backward, in the order in which it runs."""
        return [Computation(self.computing[place], start, end) for place, start, end in self.played.backward]

    @property
    def turn(self) -> float:
        """When forward ends and backward begins."""
        return self.played.turn

    @property
    def computed(self) -> float:
        """When backward ends."""
        return self.played.computed

    @property
    def end(self) -> float:
        """When everything is over."""
        return self.played.end

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
    found = operations(document) if run is None else run
    computing = tuple([one for one in found if not one.sync and one.node["op"] != "placeholder"])
    first = {bucket: place for place, one in reversed(list(enumerate(computing))) for bucket in one.buckets}
    buckets = (document["plan"] or {"buckets": ()})["buckets"]
    messages = [Message(nbytes=sent_bytes(bucket), last=first.get(bucket["index"])) for bucket in buckets]
    played = play([_cost(one, read[one.node["name"]]) for one in computing], messages, rates, ranks=ranks)
    return Step(
        ranks,
        computing,
        played,
        tuple(
            Transfer(
                bucket["index"],
                sent_bytes(bucket),
                travel.ready,
                travel.start,
                travel.end,
                None if message.last is None else computing[message.last],
            )
            for bucket, message, travel in zip(buckets, messages, played.travels, strict=True)
        ),
    )


def _bytes_read(document: Mapping[str, Any]) -> dict[str, int]:
    size = {node["name"]: node["bytes"] for node in document["after"]["nodes"]}
    read = dict.fromkeys(size, 0)
    for source, target in document["after"]["edges"]:
        read[target] += size[source]
    return read


def _cost(operation: Operation, read: int) -> OperationCost:
    node = operation.node
    return OperationCost(
        name=str(node["target"]).rpartition(".")[2],
        flops=node["flops"],
        nbytes=read + node["bytes"] + (node["param_bytes"] if node["op"] == "call_module" else 0),
        trained=operation.param_bytes > 0,
        recomputed=operation.recomputed,
    )
