"""Runs a function on several forked ranks and leaves none of them behind."""

from __future__ import annotations

import os
import sys
import time
import traceback
import unittest
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection, get_context

__all__ = ["Outcome", "on_ranks"]

_GRACE = 3.0  # seconds that the other ranks have when one has failed


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a test.

    Attributes:
        verdict: ``"passed"``, ``"failed"`` or ``"skipped"``.
        reason: the error of the first rank that raised, or why it was skipped; empty where it passed.
        seconds: of wall time.
    """

    verdict: str
    reason: str = ""
    seconds: float = 0.0


def on_ranks(
    function: Callable[[int], None], world_size: int, *, timeout: float, skips: dict[int, str], log: str = os.devnull
) -> Outcome:
    """Calls ``function(rank)`` in ``world_size`` processes forked from this one.

    Args:
        function: raises to fail, and may end its process with one of the ``skips``.
        world_size: how many processes.
        timeout: seconds after which all of them are killed.
        skips: exit codes that mean "skipped", with the reason.
        log: file that takes what the processes print.
    """
    context, start = get_context("fork"), time.monotonic()
    deadline, processes, pipes = start + timeout, [], []
    sys.stdout.flush()
    for rank in range(world_size):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(function, rank, theirs, log), daemon=True)
        process.start()
        theirs.close()
        processes.append(process)
        pipes.append(ours)
    texts: dict[int, str] = {}
    waiting = list(range(world_size))
    try:
        while waiting and (remaining := deadline - time.monotonic()) > 0:
            for ready in connection.wait([pipes[rank] for rank in waiting], remaining):
                rank = next(rank for rank in waiting if pipes[rank] is ready)
                waiting.remove(rank)
                try:
                    texts[rank] = pipes[rank].recv()
                except EOFError:
                    processes[rank].join(_GRACE)
                    code = processes[rank].exitcode
                    texts[rank] = f"skip: {skips[code]}" if code in skips else f"died with exit code {code}"
                if texts[rank]:
                    deadline = min(deadline, time.monotonic() + _GRACE)
    finally:
        for process in processes:
            process.kill()
            process.join()
        for pipe in pipes:
            pipe.close()
    return _judge(texts, waiting, timeout, time.monotonic() - start)


def _judge(texts: dict[int, str], late: list[int], timeout: float, seconds: float) -> Outcome:
    failures = [text for text in texts.values() if text and not text.startswith("skip: ")]
    if failures:
        return Outcome("failed", failures[0], seconds)
    skipped = next((text for text in texts.values() if text), None)
    if skipped is not None:
        return Outcome("skipped", skipped.removeprefix("skip: "), seconds)
    if late:
        return Outcome("failed", f"rank {late[0]} had not ended after {timeout:g} s", seconds)
    return Outcome("passed", seconds=seconds)


def _child(function: Callable[[int], None], rank: int, pipe: connection.Connection, log: str) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    text = ""
    try:
        function(rank)
    except unittest.SkipTest as skip:
        text = f"skip: {skip}"
    except Exception as error:
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}"
    pipe.send(text)
    os._exit(0)  # without what multiprocessing and torch do at the end of a process that others hold
