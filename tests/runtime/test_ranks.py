"""The fixture that runs functions on real ranks."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time

import pytest
import torch
import torch.distributed as dist

from autopar.runtime.group import join
from tests.ranks import RankFailedError, run_ranks
from tests.runtime.pairs import Ranks


def sum_of_ranks(offset: int) -> tuple[int, torch.Tensor, int]:
    """A collective, an argument, and the number of threads."""
    join(torch.device("cpu"), timeout=20.0)
    total = torch.tensor([dist.get_rank() + offset])
    dist.all_reduce(total)
    return dist.get_rank(), total, torch.get_num_threads()


def test_results_come_back_in_rank_order(ranks: Ranks) -> None:
    """Each process has its rank, one thread, and the same group."""
    assert ranks(sum_of_ranks, 3, 10) == [(0, torch.tensor([33]), 1), (1, torch.tensor([33]), 1), (2, 33, 1)]


def rank_1_raises() -> None:
    """The others wait for it for ever."""
    if os.environ["RANK"] == "1":
        raise ValueError("deliberate")
    threading.Event().wait()


def test_a_traceback_of_a_rank_is_shown_and_the_others_end() -> None:
    """One rank's failure ends the run within the grace, with the rank and its traceback in the message."""
    started = time.monotonic()
    with pytest.raises(RankFailedError) as caught:
        run_ranks(rank_1_raises, 2)
    assert time.monotonic() - started < 40.0
    assert "rank 1 raised:\nTraceback" in str(caught.value)
    assert "in rank_1_raises" in str(caught.value)
    assert "ValueError: deliberate" in str(caught.value)
    assert not multiprocessing.active_children()


def hang() -> None:
    """Never ends."""
    threading.Event().wait()


def test_ranks_that_hang_are_killed() -> None:
    """The time limit is hard, and no process is left."""
    with pytest.raises(RankFailedError, match="rank 0, 1 had not ended after 1 s"):
        run_ranks(hang, 2, timeout=1.0)
    assert not multiprocessing.active_children()


def rank_0_dies() -> str:
    """Ends without a word on rank 0."""
    if os.environ["RANK"] == "0":
        os._exit(3)
    return "here"


def test_a_rank_that_dies() -> None:
    """It is a failure with the exit code, unless the test says that the rank is lost."""
    with pytest.raises(RankFailedError, match="rank 0 died with exit code 3"):
        run_ranks(rank_0_dies, 2)
    assert run_ranks(rank_0_dies, 2, lost=[0]) == [None, "here"]
