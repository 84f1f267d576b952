"""Ranks that differ, die, stop or leave: the others say so, soon, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
import torch
import torch.distributed as dist

from autopar.errors import AutoparError, LaunchError, RankMismatchError, RuntimeStateError
from autopar.shm import Communicator, Work
from tests.runtime.pairs import Ranks
from tests.shm.groups import communicating

_TRANSPORTS = pytest.mark.parametrize("compiler", ["0", "1"], ids=["compiled", "portable"])


def _send(group: Communicator, difference: str, odd: bool) -> Work:
    if difference == "count":
        return group.all_reduce(torch.ones(4 if odd else 5), label="step 1, bucket 3 (a.weight)")
    if difference == "dtype":
        return group.all_reduce(torch.ones(4, dtype=torch.float64 if odd else torch.float32))
    if difference == "label":
        return group.all_reduce(torch.ones(4), label=f"step {1 + odd}, bucket 0 (a.weight)")
    if difference == "kind":
        return group.barrier() if odd else group.broadcast(torch.ones(4))
    return group.all_reduce(torch.ones(4), "max" if odd else "sum")


def _disagree(difference: str) -> str:
    with communicating() as group:
        group.all_reduce(torch.ones(10), label="step 0").wait()
        with pytest.raises(RankMismatchError) as caught:
            _send(group, difference, odd=group.rank == 1).wait()
        with pytest.raises(RankMismatchError):  # and for good
            group.barrier()
        return str(caught.value)


@pytest.mark.parametrize(
    ("difference", "ones", "others"),
    [
        (
            "count",
            "step 1, bucket 3 (a.weight), all-reduce, 4 float32",
            "step 1, bucket 3 (a.weight), all-reduce, 5 float32",
        ),
        ("dtype", "all-reduce, 4 float64", "all-reduce, 4 float32"),
        (
            "label",
            "step 2, bucket 0 (a.weight), all-reduce, 4 float32",
            "step 1, bucket 0 (a.weight), all-reduce, 4 float32",
        ),
        ("kind", "barrier", "broadcast, 4 float32"),
        ("operator", "all-reduce (max), 4 float32", "all-reduce, 4 float32"),
    ],
)
def test_ranks_that_differ(ranks: Ranks, difference: str, ones: str, others: str) -> None:
    """Both sides are named, and every rank raises the same words."""
    texts = ranks(_disagree, 3, difference)
    assert texts[0] == texts[1] == texts[2]
    assert f"rank 1 sends {ones}; rank 0 sends {others}." in texts[0]


def _killed(when: str) -> tuple[str, float]:
    with communicating() as group:
        group.all_reduce(torch.ones(10)).wait()
        doomed = group.rank == 1
        if doomed and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        tensor = group.empty(2_000_000, torch.float32).fill_(1)
        if when == "after":
            group.all_reduce(tensor).wait()
            if doomed:
                os.kill(os.getpid(), signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(AutoparError) as caught:
            group.all_reduce(tensor, label="step 1").wait()
        return str(caught.value), time.monotonic() - started


@_TRANSPORTS
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_rank(ranks: Ranks, when: str, compiler: str) -> None:
    """The others name it within about a second, not at the time limit."""
    results = ranks(_killed, 3, when, lost=[1], environment={"AUTOPAR_NO_COMPILER": compiler})
    for number in (0, 2):
        text, seconds = results[number]
        assert f"Rank {number} of 3 lost the others at step 1: rank 1 (process " in text
        assert "died" in text
        assert seconds < 2.0


def _killed_while_reducing() -> tuple[str, float, int]:
    with communicating() as group:
        tensors = [group.empty(500_000, torch.float32) for _ in range(4)]
        group.barrier().wait()
        if group.rank == 1:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGKILL)).start()
        last = time.monotonic()
        try:
            while True:
                for work in [group.all_reduce(tensor) for tensor in tensors]:
                    work.wait()
                last = time.monotonic()
        except LaunchError as error:
            return str(error), time.monotonic() - last, os.getpid()


def test_rank_that_is_killed_inside_operations(ranks: Ranks) -> None:
    """Wherever it was, the others do not wait for its share."""
    for number, result in enumerate(ranks(_killed_while_reducing, 3, lost=[1])):
        if number != 1:
            text, seconds, pid = result
            assert "rank 1 (process " in text
            assert seconds < 2.0
            assert not os.path.exists(f"/proc/{pid}")


def _stopped() -> str:
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    with communicating(timeout=1.0) as group:
        group.barrier().wait()
        if group.rank == 1:
            store.set("pid", str(os.getpid()))
            store.wait(["stopped"])
            store.wait(["done"])
            return ""
        pid = int(store.get("pid"))
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(LaunchError) as caught:
                group.all_reduce(torch.ones(5), label="step 3").wait()
        finally:
            os.kill(pid, signal.SIGCONT)
            store.set("stopped", "")
            store.set("done", "")
        return str(caught.value)


def test_rank_that_is_stopped(ranks: Ranks) -> None:
    """It lives, so it has until the time limit."""
    text = ranks(_stopped, 2)[0]
    assert "Rank 0 of 2 lost the others at step 3: rank 1 did not come within 1 s" in text


def _leaves() -> str:
    with communicating() as group:
        if group.rank == 1:
            return ""
        with pytest.raises(LaunchError) as caught:
            group.all_reduce(torch.ones(5)).wait()
        return str(caught.value)


def test_rank_that_has_left(ranks: Ranks) -> None:
    """A rank that has closed its communicator will not come."""
    assert "rank 1 has left" in ranks(_leaves, 2)[0]


def _gives_up() -> str:
    with communicating(timeout=1.0) as group:
        if group.rank == 1:
            time.sleep(0.01)  # whichever of the two is first
        if group.rank == 2:
            store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
            store.wait(["0", "1"])
            return ""
        with pytest.raises(LaunchError) as caught:
            group.all_reduce(torch.ones(5)).wait()
        store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
        store.set(str(group.rank), "")
        return str(caught.value)


def test_reason_is_handed_on(ranks: Ranks) -> None:
    """Who gives up says why, and whoever waits for it as well says the same."""
    for text in ranks(_gives_up, 3)[:2]:
        assert "rank 2 did not come within 1 s" in text


def _forked() -> str:
    with communicating() as group:
        group.barrier().wait()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                group.barrier()
            except RuntimeStateError as error:
                os.write(writer, str(error).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        group.barrier().wait()
        return os.read(reader, 1000).decode()


def test_forked_child_is_refused(ranks: Ranks) -> None:
    """It would speak for its parent; the parent goes on."""
    assert ["forked child" in text for text in ranks(_forked, 2)] == [True, True]


def _closed() -> str:
    with communicating() as group:
        group.close()
        group.close()
        with pytest.raises(RuntimeStateError) as caught:
            group.barrier()
        return str(caught.value)


def test_closed_communicator_is_refused(ranks: Ranks) -> None:
    """Closing twice is fine, using it after is not."""
    assert all("is closed" in text for text in ranks(_closed, 2))
