"""The predicted step: times that can be worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from autopar.view.predict import predict
from tests.view.documents import WEIGHT_BYTES, chain, node

SECOND = {
    "flops": 256.0,
    "memory": 1e9,
    "operation": 1e-9,
    "link": 1.5 * WEIGHT_BYTES,
    "message": 1e-9,
    "origin": "given",
}
"""One linear of the chain takes a second, and one all-reduce of four ranks, too."""


def _chain(modules: list[str], **changes: Any) -> dict[str, Any]:
    return {**chain(modules), "rates": SECOND, **changes}


def test_forward_and_backward() -> None:
    """Backward is once a forward for the parameters, and once more for the input where one is needed."""
    step = predict(_chain(["a", "b"]))
    assert (step.turn, step.computed) == (pytest.approx(2, abs=1e-6), pytest.approx(5, abs=1e-6))
    assert [one.operation.node["module"] for one in step.backward] == ["b", "a"]


def test_buckets_leave_when_they_are_complete_one_after_the_other() -> None:
    """Bucket 0 travels while a computes, bucket 1 after that."""
    first, second = predict(_chain(["a", "b"])).transfers
    assert (first.ready, first.end) == (pytest.approx(4, abs=1e-6), pytest.approx(5, abs=1e-6))
    assert (second.start, second.end) == (pytest.approx(5, abs=1e-6), pytest.approx(6, abs=1e-6))
    assert second.last is not None
    assert second.last.node["module"] == "a"


def test_a_bucket_waits_for_the_one_before() -> None:
    """With a network of half the speed bucket 1 is ready before bucket 0 is over."""
    step = predict(_chain(["a", "b"], rates={**SECOND, "link": 0.75 * WEIGHT_BYTES}))
    assert step.transfers[1].start == step.transfers[0].end > step.transfers[1].ready
    assert step.exposed == pytest.approx(3, abs=1e-6)


@pytest.mark.parametrize(("ranks", "seconds"), [(1, 0.0), (2, 2 / 3), (4, 1.0), (None, 2 / 3)])
def test_ranks(ranks: int | None, seconds: float) -> None:
    """A ring moves 2 (n - 1) / n of the bytes; one rank sends nothing; two are assumed where nobody said."""
    step = predict(_chain(["a"], world_size=ranks))
    assert step.travelling == pytest.approx(seconds, abs=1e-6)
    assert step.end == pytest.approx(2 + seconds, abs=1e-6)


def test_unused_parameters_travel_at_the_end() -> None:
    """A bucket that no operation feeds is complete when backward is over."""
    document = _chain(["a", "b"])
    document["after"]["nodes"] = [one for one in document["after"]["nodes"] if one["module"] != "b"]
    document["after"]["edges"] = []
    step = predict(document)
    assert step.transfers[0].last is None
    assert step.transfers[0].ready == step.computed


def test_memory_decides_where_there_is_little_to_compute() -> None:
    """An activation reads and writes 64 bytes; a view moves nothing."""
    document = _chain(["a"], rates={**SECOND, "memory": 64.0})
    document["after"]["nodes"][-1:-1] = [node("r", target="F.relu"), node("v", "call_method", ".view")]
    document["after"]["edges"] += [["op0", "r"], ["r", "v"]]
    relu, view = predict(document).forward[-2:]
    assert relu.end - relu.start == pytest.approx(2, abs=1e-6)
    assert view.end - view.start < 1e-6


def test_nothing_to_send() -> None:
    """Without a plan a step is its computing."""
    step = predict({**_chain(["a"]), "plan": None})
    assert (step.transfers, step.exposed) == ((), 0)
