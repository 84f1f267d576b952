"""Memory that is not there is an error before it is touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autopar.shm import memory
from autopar.shm.memory import available_memory
from autopar.shm.segment import Segment


def test_too_much_is_refused_before_it_is_reserved() -> None:
    """Reserving it would end this process: a memfd has no limit."""
    with pytest.raises(OSError, match="bytes of memory are needed"):
        Segment.create(1 << 52)


def test_what_others_take_at_the_same_time_counts() -> None:
    """Sixteen ranks of a host reserve alike."""
    available = available_memory()
    assert available is not None
    with pytest.raises(OSError, match="are needed"):
        Segment.create(available // 2, sharers=16)


def test_limit_of_a_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smaller of host and group; "max" is no limit."""
    (tmp_path / "max").write_text("1000000\n")
    (tmp_path / "current").write_text("400000\n")
    (tmp_path / "unlimited").write_text("max\n")
    groups = [(str(tmp_path / "max"), str(tmp_path / "current")), (str(tmp_path / "unlimited"), "/nowhere")]
    monkeypatch.setattr(memory, "_GROUPS", groups)
    assert available_memory() == 600_000


def test_segment_is_seen_through_proc() -> None:
    """What one mapping writes the other reads, until both are gone."""
    segment = Segment.create(4096)
    other = Segment.of_peer(os.getpid(), segment.fd)
    segment.memory[:5] = b"hello"
    assert other.memory[:5] == b"hello"
    segment.close()
    assert other.memory[:5] == b"hello"
    with pytest.raises(OSError, match="No such file"):
        Segment.of_peer(os.getpid(), segment.fd)
