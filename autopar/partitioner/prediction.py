"""What a plan expects of a step: when it ends, and when each of its buckets travels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from autopar.partitioner.rates import Rates
from autopar.partitioner.timeline import Message, OperationCost, Travel, play

__all__ = ["Prediction", "predict", "resized"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One predicted step; times are in seconds from its beginning.

    Attributes:
        ranks: how many ranks it was predicted for.
        rates: the speeds that it rests on.
        computed: when the rank has computed everything.
        end: when everything is over.
        buckets: when each bucket travels, in launch order.
    """

    ranks: int
    rates: Rates
    computed: float
    end: float
    buckets: tuple[Travel, ...]


def predict(costs: Sequence[OperationCost], messages: Sequence[Message], rates: Rates, *, ranks: int) -> Prediction:
    """The step of these operations with these messages, see ``autopar.partitioner.timeline.play``."""
    step = play(costs, messages, rates, ranks=ranks)
    return Prediction(ranks=ranks, rates=rates, computed=step.computed, end=step.end, buckets=step.travels)


def resized(prediction: Prediction, before: Sequence[int], after: Sequence[int]) -> Prediction:
    """The same step with messages of other sizes.

    Args:
        prediction: of messages of ``before`` bytes, in launch order.
        before, after: bytes of each message.
    """
    rates = prediction.rates
    shift = free = 0.0  # what is computed later than before; when the wire is free
    travels = []
    for travel, old, new in zip(prediction.buckets, before, after, strict=True):
        ready, taken = travel.ready + shift, rates.all_reduce(new, prediction.ranks)
        start = max(ready, free)
        free = start + taken
        travels.append(Travel(ready=ready, start=start, end=free))
        shift += (1.0 - rates.overlap) * (taken - rates.all_reduce(old, prediction.ranks))
    computed = prediction.computed + shift
    return replace(prediction, computed=computed, end=max(computed, free), buckets=tuple(travels))
