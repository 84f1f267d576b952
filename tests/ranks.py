"""Runs a function on several real ranks: gloo over loopback, one process each.

The processes are forked from a server that has torch imported already, so that a run costs a
fraction of a second. Each finds the environment that torchrun would give it.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing import connection, get_context
from multiprocessing.context import ForkServerContext, ForkServerProcess
from types import ModuleType
from typing import Any

import torch.distributed as dist

__all__ = ["RankFailedError", "run_ranks"]

_GRACE = 5.0  # seconds that the other ranks have to end when one has failed
_context: ForkServerContext | None = None


class RankFailedError(AssertionError):
    """A rank raised, died or took too long; the message holds its traceback."""


@dataclass(slots=True)
class _Rank:
    number: int
    process: ForkServerProcess
    pipe: connection.Connection
    outcome: tuple[str, Any] | None = field(default=None)

    @property
    def ended(self) -> bool:
        return self.outcome is not None


def run_ranks(
    function: Callable[..., Any],
    world_size: int,
    *args: Any,
    timeout: float = 60.0,
    lost: Collection[int] = (),
    environment: dict[str, str | None] | None = None,
) -> list[Any]:
    """Calls a module-level function on every rank and returns the results in rank order.

    Args:
        function: called as ``function(*args)``; it finds RANK and WORLD_SIZE in the environment and
            joins the process group by itself, as a training script does.
        world_size: how many processes.
        *args: arguments; they and the results must be picklable.
        timeout: seconds after which all ranks are killed.
        lost: ranks that are to die on the way; their result is None.
        environment: variables to set, or with None to remove, beside torchrun's.

    Raises:
        RankFailedError: with the traceback of every rank that raised.
    """
    __tracebackhide__ = True
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=timeout))
    work = pickle.dumps((_place(function), args))
    ranks = [_start(number, world_size, store.port, environment or {}, work) for number in range(world_size)]
    try:
        _collect(ranks, time.monotonic() + timeout)
    finally:
        for rank in ranks:
            rank.process.kill()
            rank.process.join()
            rank.process.close()
            rank.pipe.close()
    _raise_failures(ranks, lost, timeout)
    return [rank.outcome[1] if rank.outcome and rank.outcome[0] == "ok" else None for rank in ranks]


def _start(number: int, world_size: int, port: int, environment: dict[str, str | None], work: bytes) -> _Rank:
    variables: dict[str, str | None] = {
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # as under torchrun, the launcher holds the store
        "TORCHELASTIC_RESTART_COUNT": "0",
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        **environment,
    }
    ours, theirs = _forkserver().Pipe(duplex=False)
    process = _forkserver().Process(target=_child, args=(theirs, variables, work), daemon=True)
    process.start()
    theirs.close()
    return _Rank(number, process, ours)


def _forkserver() -> ForkServerContext:
    global _context
    if _context is None:
        _context = get_context("forkserver")
        _context.set_forkserver_preload(["torch", "tests.preload"])
    return _context


def _collect(ranks: list[_Rank], deadline: float) -> None:
    """Waits for every rank; once one has failed, the others get a short grace only."""
    while waiting := [rank for rank in ranks if not rank.ended]:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return
        for ready in connection.wait([rank.pipe for rank in waiting], remaining):
            rank = next(rank for rank in waiting if rank.pipe is ready)
            try:
                rank.outcome = pickle.loads(rank.pipe.recv_bytes())
            except EOFError:
                rank.process.join(_GRACE)
                rank.outcome = ("died", rank.process.exitcode)
            if rank.outcome is not None and rank.outcome[0] == "raised":
                deadline = min(deadline, time.monotonic() + _GRACE)


def _raise_failures(ranks: Iterable[_Rank], lost: Collection[int], timeout: float) -> None:
    __tracebackhide__ = True
    failures: dict[str, list[int]] = {}  # the ranks of each text: they often fail alike
    for rank in ranks:
        kind, value = rank.outcome or ("late", None)
        if kind == "raised":
            text = f"raised:\n{value}"
        elif kind == "late":
            text = f"had not ended after {timeout:g} s, or {_GRACE:g} s after another failed"
        elif kind == "died" and rank.number not in lost:
            text = f"died with exit code {value}"
        else:
            continue
        failures.setdefault(text, []).append(rank.number)
    if failures:
        reports = [f"rank {', '.join(map(str, numbers))} {text}" for text, numbers in failures.items()]
        raise RankFailedError("\n".join(reports))


def _place(function: Callable[..., Any]) -> tuple[str, str, str]:
    module = sys.modules[function.__module__]
    assert module.__file__ is not None
    assert "<" not in function.__qualname__, f"{function.__qualname__} must be at module level"
    return module.__name__, module.__file__, function.__qualname__


def _load(name: str, file: str) -> ModuleType:
    """The test's module, by file: its name need not be importable from here."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


def _child(pipe: connection.Connection, variables: dict[str, str | None], work: bytes) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    import torch

    torch.set_num_threads(1)
    try:
        (name, file, function), args = pickle.loads(work)
        result: Any = _load(name, file)
        for part in function.split("."):
            result = getattr(result, part)
        message = pickle.dumps(("ok", result(*args)))
    except BaseException:
        message = pickle.dumps(("raised", traceback.format_exc()))
    pipe.send_bytes(message)
    if dist.is_initialized():
        dist.destroy_process_group()
