"""Heartbeats through a store: what others began last, and a store that is gone holds nobody up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch.distributed as dist

from autopar.runtime import heartbeats
from autopar.runtime.heartbeats import StoreHeartbeats

_PERIOD, _PATIENCE = 0.02, 0.2  # seconds, for tests


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests wait for shorter times."""
    monkeypatch.setattr(heartbeats, "_PERIOD", _PERIOD)
    monkeypatch.setattr(heartbeats, "_PATIENCE", _PATIENCE)


class Failing(dist.HashStore):
    """Answers nothing once it has failed; with ``ends``, not even that it does not."""

    failed, ends = False, None

    def multi_get(self, keys: list[str]) -> list[bytes]:
        """As a store does, until it fails."""
        if self.failed and self.ends is None:
            raise dist.DistNetworkError("Connection reset by peer")
        if self.failed:
            self.ends.wait()
        return super().multi_get(keys)


@pytest.fixture
def frozen() -> Iterator[Failing]:
    """A store that can stop answering, until the end of the test."""
    store = Failing()
    store.ends = threading.Event()
    yield store
    store.ends.set()


def test_what_others_began_last() -> None:
    """The other's is written down without its doing anything; one's own is never older than now."""
    store = dist.HashStore()
    mine, other = StoreHeartbeats(store, 0, 2), StoreHeartbeats(store, 1, 2)
    assert [str(beat).partition(" at ")[2] for beat in mine.read()] == ["the start", "the start"]
    other.beat("step 7, bucket 1 of 3")
    time.sleep(20 * _PERIOD)
    mine.beat("step 7, bucket 2 of 3")
    labels = [(beat.rank, beat.label) for beat in mine.read()]
    assert labels == [(0, "step 7, bucket 2 of 3"), (1, "step 7, bucket 1 of 3")]
    assert mine.read()[1].age == pytest.approx(20 * _PERIOD, abs=0.3)


def test_thread_ends_with_its_heartbeats() -> None:
    """No thread is left behind for a model that nobody has any more."""
    before = threading.active_count()
    beats = StoreHeartbeats(dist.HashStore(), 0, 1)
    assert threading.active_count() == before + 1
    del beats
    assert threading.active_count() == before


def test_store_that_hangs(frozen: Failing) -> None:
    """The report comes in time, without heartbeats."""
    beats = StoreHeartbeats(frozen, 0, 1)
    frozen.failed = True
    started = time.monotonic()
    assert beats.read() == []
    assert time.monotonic() - started < _PATIENCE + 1.0


def test_store_that_is_gone() -> None:
    """As when the rank died that held it."""
    store = Failing()
    beats = StoreHeartbeats(store, 0, 1)
    store.failed = True
    assert beats.read() == []
