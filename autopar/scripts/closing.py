"""The sentence that ``autopar run`` ends with when a rank has failed."""

from __future__ import annotations

import signal
from collections.abc import Collection, Sequence
from dataclasses import dataclass

__all__ = ["Failure", "closing", "signal_name"]

_LONGEST = 300  # characters of an exception's text; its traceback stands above


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How one rank ended.

    Attributes:
        rank: its number among all ranks.
        exit_code: of its process; minus the signal's number where one ended it.
        time: when, in seconds since the epoch.
        error: exception class and text; ``""`` where there was none.
        place: file and line of the user's that raised it, such as ``"train.py:14"``, where known.
        lost: whether the exception only says that another rank was gone.
        heartbeats: when each rank began which collective last, as far as this one knows.
    """

    rank: int
    exit_code: int
    time: float
    error: str = ""
    place: str = ""
    lost: bool = False
    heartbeats: str = ""

    @property
    def stopped(self) -> bool:
        """Whether the launcher itself ended the rank."""
        return self.exit_code == -signal.SIGTERM and not self.error


def closing(script: str, failures: Collection[Failure], *, ranks: Sequence[int], several_hosts: bool = False) -> str:
    """What failed, where, and what became of the other ranks.

    The first that failed by itself is the cause; ranks that were stopped, or that only noticed that
    another was gone, are not.

    Args:
        script: path of the user's script, as it was given.
        failures: of this host, at least one.
        ranks: all ranks of this host.
        several_hosts: whether there are ranks elsewhere.

    Example:
        >>> killed = Failure(rank=1, exit_code=-9, time=0.0)
        >>> stopped = Failure(rank=0, exit_code=-15, time=0.1)
        >>> closing("train.py", [stopped, killed], ranks=[0, 1])[:70]
        'train.py failed on rank 1: it was killed by SIGKILL. Rank 0 was stoppe'
    """
    first = min(failures, key=lambda failure: (failure.stopped, failure.lost, failure.time))
    alike = [one for one in failures if (_what(one), one.lost) == (_what(first), first.lost)]
    sentences = [f"{script} failed on {_ranks([one.rank for one in alike], ranks)}: {_what(first)}."]
    others = [one for one in failures if one not in alike]
    also = [one for one in others if not one.stopped and not one.lost]
    sentences += [f"Rank {one.rank} failed, too: {_what(one)}." for one in sorted(also, key=lambda one: one.rank)]
    ended = {
        "was stopped": [one.rank for one in others if one.stopped],
        _lost(first, len(alike)): [one.rank for one in others if one.lost],
        "had ended by itself": sorted(set(ranks) - {one.rank for one in failures}),
    }
    for what, numbers in ended.items():
        if numbers:
            words = what if len(numbers) == 1 else what.replace("was", "were").replace("itself", "themselves")
            sentences.append(f"{_ranks(numbers, ()).capitalize()} {words}.")
    if several_hosts and (first.lost or first.stopped):
        sentences.append("The first error is on another host.")
    heartbeats = next((one.heartbeats for one in failures if one.heartbeats), "")
    if heartbeats and (first.lost or not first.error):  # nobody else says where the others were
        sentences.append(f"Last heartbeats: {heartbeats}.")
    if first.exit_code == -signal.SIGKILL:
        sentences.append("The system kills a process so when memory runs out.")
    return " ".join(sentences)


def signal_name(number: int) -> str:
    """``"SIGKILL"`` for 9; the number where it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _lost(first: Failure, how_many: int) -> str:
    if first.lost:
        return "lost others, too"
    return f"lost {'it' if how_many == 1 else 'them'} and ended"


def _what(failure: Failure) -> str:
    if failure.error:
        line = failure.error.strip().splitlines()[0].rstrip(".: ")
        line = line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."
        return f"{line} ({failure.place})" if failure.place else line
    if failure.exit_code < 0:
        return f"it was killed by {signal_name(-failure.exit_code)}"
    return f"it ended with exit code {failure.exit_code}"


def _ranks(numbers: Collection[int], everyone: Collection[int]) -> str:
    listed = sorted(numbers)
    if len(listed) == 1:
        return f"rank {listed[0]}"
    if len(listed) == len(everyone):
        return f"all {len(listed)} ranks"
    return f"ranks {', '.join(map(str, listed[:-1]))} and {listed[-1]}"
