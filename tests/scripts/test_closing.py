"""The closing sentence: which rank failed first, how, and what became of the others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autopar.scripts.closing import Failure, closing

RAISED = Failure(rank=1, exit_code=1, time=10.5, error="ValueError: bad sample 17", place="train.py:14")
KILLED = Failure(rank=1, exit_code=-9, time=11.0)
STOPPED = Failure(rank=0, exit_code=-15, time=9.0)
LOST = Failure(
    rank=0, exit_code=1, time=10.0, error="Rank 0 of 2 lost the others at step 3", place="train.py:9", lost=True
)


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        (
            [STOPPED, RAISED],
            "train.py failed on rank 1: ValueError: bad sample 17 (train.py:14). Rank 0 was stopped.",
        ),
        (
            [LOST, KILLED],
            "train.py failed on rank 1: it was killed by SIGKILL. Rank 0 lost it and ended. "
            "The system kills a process so when memory runs out.",
        ),
        (
            [Failure(rank=1, exit_code=3, time=1.0)],
            "train.py failed on rank 1: it ended with exit code 3. Rank 0 had ended by itself.",
        ),
        (
            [Failure(rank=0, exit_code=1, time=20.0, error="TypeError: x"), RAISED],
            "train.py failed on rank 1: ValueError: bad sample 17 (train.py:14). Rank 0 failed, too: TypeError: x.",
        ),
    ],
)
def test_cause_and_consequences(failures: list[Failure], expected: str) -> None:
    """A rank that was stopped or lost another is never the cause, whenever it ended."""
    assert closing("train.py", failures, ranks=[0, 1]) == expected


def test_a_hang_is_told_by_the_heartbeats() -> None:
    """No rank failed by itself then: the launcher stopped the one that hung. A traceback needs no heartbeats."""
    beats = "rank 0 2.0 s ago at step 3; rank 1 2.1 s ago at step 2; rank 2 2.0 s ago at step 3"
    texts = {rank: f"Rank {rank} of 3 lost the others at step 3: rank 1 did not come within 2 s" for rank in (0, 2)}
    waited = [replace(LOST, rank=rank, error=text, heartbeats=beats) for rank, text in texts.items()]
    hung = replace(STOPPED, rank=1)
    assert closing("train.py", [*waited, hung], ranks=range(3)) == (
        f"train.py failed on rank 0: {texts[0]} (train.py:9). Rank 1 was stopped. "
        f"Rank 2 lost others, too. Last heartbeats: {beats}."
    )
    assert f"Last heartbeats: {beats}. The system" in closing("train.py", [*waited, KILLED], ranks=range(3))
    assert "heartbeats" not in closing("train.py", [*waited, RAISED], ranks=range(3))


def test_one_error_on_every_rank_is_said_once() -> None:
    """Such as a module that cannot be imported."""
    error = "ModuleNotFoundError: No module named 'flow'"
    failures = [Failure(rank=rank, exit_code=1, time=rank, error=error, place="train.py:3") for rank in range(4)]
    assert closing("train.py", failures, ranks=range(4)) == f"train.py failed on all 4 ranks: {error} (train.py:3)."
    assert "failed on ranks 0, 1 and 2: " in closing("train.py", failures[:3], ranks=range(4))


def test_several_others_are_listed() -> None:
    """In the plural."""
    failures = [RAISED, STOPPED, Failure(rank=2, exit_code=-15, time=9.0)]
    assert closing("train.py", failures, ranks=range(3)).endswith("Ranks 0 and 2 were stopped.")


def test_a_loss_alone_points_to_the_other_host() -> None:
    """There the real error is; with a cause of its own the host says nothing about others."""
    assert closing("train.py", [LOST], ranks=[0], several_hosts=True).endswith("The first error is on another host.")
    assert "another host" not in closing("train.py", [LOST, RAISED], ranks=[0, 1], several_hosts=True)


def test_only_the_first_line_of_a_long_error_is_repeated() -> None:
    """Its traceback stands above."""
    failure = Failure(rank=0, exit_code=1, time=0.0, error="RuntimeError: " + "x" * 1000 + "\nOriginal Traceback")
    sentence = closing("train.py", [failure], ranks=[0])
    assert "Traceback" not in sentence
    assert len(sentence) < 350
