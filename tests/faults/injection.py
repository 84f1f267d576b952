"""Runs one fault on three real processes, and says what the survivors did and what was left behind."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tests.faults.training import FAULTY_RANK, Outcome, train
from tests.ranks import run_ranks
from tests.shared_files import shared_files

__all__ = ["WORLD_SIZE", "Result", "inject"]

WORLD_SIZE = 3


@dataclass(frozen=True, slots=True)
class Result:
    """What a fault did.

    Attributes:
        survivors: rank to how it ended; the faulty one is not among them.
        left_behind: processes and files in /dev/shm that were not there before.
    """

    survivors: dict[int, Outcome]
    left_behind: tuple[str, ...]


def inject(fault: str, backend: str) -> Result:
    """Trains on three ranks with this fault.

    Raises:
        RankFailedError: a survivor did not end by itself.
    """
    before = shared_files()
    outcomes = run_ranks(
        train, WORLD_SIZE, fault, backend, timeout=60.0, lost=[FAULTY_RANK] if fault.startswith("killed") else []
    )
    survivors = {rank: outcome for rank, outcome in enumerate(outcomes) if rank != FAULTY_RANK}
    files = [f"/dev/shm/{name}" for name in shared_files() - before]
    alive = [f"process {o.pid}" for o in outcomes if o is not None and os.path.exists(f"/proc/{o.pid}")]
    return Result(survivors, (*files, *alive))
