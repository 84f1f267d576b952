"""The quick part of ``make faults``: survivors end by themselves, in time, and say what happened."""

from __future__ import annotations

import re

import pytest

from tests.faults.injection import inject
from tests.faults.training import TIMEOUT

_BUCKET_0 = "bucket 0 of 6 (third.bias)"
_SOON = TIMEOUT / 2  # noticed, and not waited for


@pytest.mark.parametrize(
    ("fault", "place"),
    [
        ("killed before a collective", f"step 3, {_BUCKET_0}"),
        ("killed inside a collective", "step 3, bucket"),
        ("killed after a collective", f"step 4, {_BUCKET_0}"),
        ("raises", f"step 3, {_BUCKET_0}"),
    ],
)
def test_lost_rank_over_shared_memory(fault: str, place: str) -> None:
    """Rank, step, bucket and parameter, long before the time limit."""
    result = inject(fault, "shm")
    for rank, outcome in result.survivors.items():
        assert outcome.said.startswith(f"Rank {rank} of 3 lost the others at {place}")
        assert "rank 1 " in outcome.said
        beats = re.search(r"Last heartbeats: rank 0 (.*); rank 1 (.*); rank 2 (.*)\. Look at", outcome.said)
        assert beats is not None
        last = "step 2, bucket 5 of 6" if fault in ("killed before a collective", "raises") else "step 3, bucket "
        assert re.match(rf"\d+\.\d s ago at {last}", beats[2])
        assert outcome.seconds < _SOON
    assert result.left_behind == ()


@pytest.mark.parametrize("fault", ["killed inside a collective", "loses its connections"])
def test_lost_rank_over_gloo(fault: str) -> None:
    """gloo does not say which rank it was; autopar says which bucket."""
    result = inject(fault, "torch")
    for rank, outcome in result.survivors.items():
        assert outcome.said.startswith(f"Rank {rank} of 3 lost the others at step 3, bucket ")
        assert outcome.seconds < _SOON
    assert result.left_behind == ()


@pytest.mark.parametrize("backend", ["shm", "torch"])
def test_hanging_rank(backend: str) -> None:
    """The others wait as long as they were told to, and know from its heartbeat where it stopped."""
    for outcome in inject("hangs", backend).survivors.values():
        assert f"step 3, {_BUCKET_0}" in outcome.said
        assert re.search(r"; rank 1 [2-5]\.\d s ago at step 2, bucket 5 of 6 \(first\.weight\); rank 2 ", outcome.said)
        assert TIMEOUT <= outcome.seconds < 2 * TIMEOUT


@pytest.mark.parametrize("fault", ["is slow", "takes another branch", "loses its connections"])
def test_what_is_survived(fault: str) -> None:
    """A slow rank is waited for, a parameter that one rank does not use counts as zero, memory needs no cable."""
    result = inject(fault, "shm")
    assert [outcome.said for outcome in result.survivors.values()] == ["", ""]
    assert len({outcome.checksum for outcome in result.survivors.values()}) == 1


@pytest.mark.filterwarnings("ignore:Gradients travel over")
def test_no_shared_memory_for_one_rank() -> None:
    """All ranks use gloo then, together, from the start."""
    result = inject("may take no shared memory", "auto")
    assert [outcome.said for outcome in result.survivors.values()] == ["", ""]
    assert result.left_behind == ()
