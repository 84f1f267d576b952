"""A process that dies while it saves."""

from __future__ import annotations

from pathlib import Path

from tests.checkpoint.killing import killed_everywhere
from tests.runtime.pairs import Ranks


def test_kill_at_every_moment_of_a_save(ranks: Ranks, tmp_path: Path) -> None:
    """Whatever the moment, one whole checkpoint is there, and the next save clears up."""
    (found,) = ranks(killed_everywhere, 1, str(tmp_path))
    steps = [step for step, _ in found]
    assert steps == sorted(steps)
    assert steps.count(1) > 8  # before the new one has its name
    assert steps.count(2) > 1  # while the old one is removed
    assert {after for _, after in found} == {3}
