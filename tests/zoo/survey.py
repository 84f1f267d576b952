"""Runs a check over many models on one set of ranks; a model that fails does not take the others along."""

from __future__ import annotations

import faulthandler
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.ranks import RankFailedError, run_ranks
from tests.zoo.registry import ZOO

__all__ = ["Found", "survey"]

_SECONDS = 120.0  # that one model may take
_LOOK = 0.2  # seconds between two looks at what has been finished


@dataclass(frozen=True, slots=True)
class Found:
    """What the check of one model gave on each rank; or, with no results, how it failed."""

    name: str
    results: Sequence[Any]
    failure: str = ""


def survey(check: Callable[..., Any], names: Sequence[str], world_size: int) -> Iterator[Found]:
    """Runs ``check(entry)`` for each model on every rank; yields each model as soon as it is done.

    All run in the same processes, since importing their libraries takes longer than they do. After a
    model that raised, crashed or took longer than 120 s, new processes go on with those behind it.

    Args:
        check: a function at module level; what it returns must be picklable.
        names: of models of the zoo.
        world_size: number of ranks; a single one is started without a launcher's environment.
    """
    waiting = list(names)
    with ThreadPoolExecutor(1) as pool:
        while waiting:
            with tempfile.TemporaryDirectory() as folder:
                running = pool.submit(_all, check, waiting.copy(), world_size, folder)
                for found in _finished(running, waiting.copy(), world_size, Path(folder)):
                    waiting.remove(found.name)
                    yield found
            failure = running.result()
            if failure:
                yield Found(waiting.pop(0), (), failure)


def _finished(running: Future[str], names: Sequence[str], world_size: int, folder: Path) -> Iterator[Found]:
    for name in names:
        files = [folder / f"{name}.{rank}" for rank in range(world_size)]
        while not all(file.exists() for file in files):
            if running.done() and not all(file.exists() for file in files):
                return
            wait([running], timeout=_LOOK)
        yield Found(name, [pickle.loads(file.read_bytes()) for file in files])


def _all(check: Callable[..., Any], names: Sequence[str], world_size: int, folder: str) -> str:
    """Runs the models until one fails; returns how it did."""
    alone: dict[str, str | None] = {"RANK": None, "WORLD_SIZE": None} if world_size == 1 else {}
    limit = _SECONDS * (len(names) + 1)
    try:
        run_ranks(_on_a_rank, world_size, check, names, folder, timeout=limit, environment=alone)
    except RankFailedError as error:
        return str(error)
    return ""


def _on_a_rank(check: Callable[..., Any], names: Sequence[str], folder: str) -> None:
    rank = os.environ.get("RANK", "0")
    for name in names:
        faulthandler.dump_traceback_later(_SECONDS, exit=True)  # works inside a collective, too
        result = pickle.dumps(check(ZOO[name]))
        faulthandler.cancel_dump_traceback_later()
        part = Path(folder) / f"{name}.{rank}.part"
        part.write_bytes(result)
        part.rename(part.with_suffix(""))  # whoever sees the file sees all of it
