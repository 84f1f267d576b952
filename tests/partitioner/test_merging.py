"""The partition that ends first, against every partition there is."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopar.partitioner.buckets import merge_buckets
from autopar.partitioner.merging import Wire, merge
from autopar.partitioner.rates import Rates
from autopar.partitioner.timeline import Message, OperationCost, play
from tests.partitioner.test_buckets import spec

FAST = Rates(flops=1.0, memory=1e9, operation=1e-9, link=4.0, message=0.1, origin="given")


def _end(cuts: list[int], sizes: list[int], ready: list[float], computed: float, wire: Wire) -> float:
    """When a step with these messages ends, message by message."""
    free = stolen = 0.0
    for start, end in itertools.pairwise([0, *cuts]):
        taken = wire.message + wire.per_byte * sum(sizes[start:end])
        free = max(free, ready[end - 1] + stolen) + taken
        stolen += (1 - wire.overlap) * taken
    return max(free, computed + stolen)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.floats(0, 3)), min_size=1, max_size=7),
    st.builds(
        Wire, message=st.floats(0.01, 3), per_byte=st.floats(0, 0.3), overlap=st.sampled_from([0.0, 0.3, 0.8, 1.0])
    ),
    st.sampled_from([1, 25, 1000]),
    st.sampled_from([0.0, 1.0]),
)
def test_no_partition_is_better(gradients: list[tuple[int, float]], wire: Wire, cap: int, rest: float) -> None:
    """All partitions within the cap are tried; a tenth of a percent is worth no message."""
    sizes = [size for size, _ in gradients]
    ready = list(itertools.accumulate(wait for _, wait in gradients))
    places = range(1, len(sizes))
    ends = [
        _end([*inner, len(sizes)], sizes, ready, ready[-1] + rest, wire)
        for count in range(len(sizes))
        for inner in itertools.combinations(places, count)
        if all(b - a == 1 or sum(sizes[a:b]) <= cap for a, b in itertools.pairwise([0, *inner, len(sizes)]))
    ]
    found = merge(sizes, ready, ready[-1] + rest, wire, cap_bytes=cap)
    assert found[-1] == len(sizes)
    assert _end(found, sizes, ready, ready[-1] + rest, wire) <= min(ends) * 1.002 + 1e-9


@pytest.mark.parametrize(
    ("message", "overlap", "messages"),
    [(1e-6, 1.0, 4), (10.0, 1.0, 1), (1e-6, 0.0, 1)],
    ids=["latency is nothing", "latency is all", "nothing is hidden"],
)
def test_what_decides(message: float, overlap: float, messages: int) -> None:
    """Each gradient alone where messages cost bytes only; together where latency counts or nothing can be hidden."""
    wire = Wire(message=message, per_byte=0.25, overlap=overlap)
    assert len(merge([4] * 4, [1.0, 2.0, 3.0, 4.0], 4.0, wire, cap_bytes=100)) == messages


def test_nothing_to_send() -> None:
    """No gradients, no messages."""
    assert merge([], [], 1.0, Wire(message=1.0, per_byte=1.0, overlap=1.0), cap_bytes=1) == []


def test_kinds_travel_apart() -> None:
    """Another dtype is another bucket, a sparse gradient one of its own; the order is that of the last gradient."""
    specs = [spec("a"), spec("b", dtype="float64"), spec("c"), spec("s", layout="sparse"), spec("t", layout="sparse")]
    slow = FAST.given({"message": "99"})
    buckets = merge_buckets(specs, list("stabc"), {}, 5.0, slow, ranks=2, cap_bytes=100)
    assert ["".join(bucket.parameters) for bucket in buckets] == ["s", "t", "b", "ac"]
    assert [bucket.index for bucket in buckets] == [0, 1, 2, 3]


def test_what_a_message_takes_of_the_rank_delays_what_follows() -> None:
    """Half of each message of one second: the second bucket is ready, and the end comes, so much later."""
    linear = OperationCost(name="linear", flops=1, nbytes=0, trained=True)
    half = Rates(flops=1.0, memory=1e9, operation=1e-9, link=4.0, message=1e-9, overlap=0.5)
    step = play([linear, linear], [Message(nbytes=4, last=1), Message(nbytes=4, last=0)], half, ranks=2)
    assert [one.ready for one in step.travels] == [pytest.approx(4.0), pytest.approx(5.5)]
    assert (step.computed, step.end) == (pytest.approx(6.0), pytest.approx(6.5))
