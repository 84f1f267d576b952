"""Reads what ``autopar run --trace`` measured: one JSON file a rank, as ``autopar.runtime.tracing`` writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autopar.errors import ModelError, UsageError

__all__ = ["Measured", "MeasuredBucket", "MeasuredStep", "read_measured"]

_FORMAT, _VERSION = "autopar-measured", 1
_MEND = "Make it anew with `autopar run --trace FOLDER`."


@dataclass(frozen=True, slots=True)
class MeasuredBucket:
    """One bucket in one step; times are in seconds from the begin of the first step that was kept.

    Attributes:
        index: its index in the plan.
        nbytes: bytes that this rank sent.
        ready: when its gradients were complete.
        sent: when its all-reduce was started.
        done: when the backend said that it was over or, where a backend says nothing, when it had been waited for.
    """

    index: int
    nbytes: int
    ready: float
    sent: float
    done: float


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """Forward and backward of one rank; pairs are begin and end.

    Attributes:
        number: which step of the training, from 0.
        forward, backward: of the model; loss and optimizer are not in them.
        wait: at the end of backward, for buckets that are still on their way: exposed communication.
        end: when all gradients are in their places.
        buckets: in launch order.
    """

    number: int
    forward: tuple[float, float]
    backward: tuple[float, float]
    wait: tuple[float, float]
    end: float
    buckets: tuple[MeasuredBucket, ...]

    @property
    def begin(self) -> float:
        """When forward began."""
        return self.forward[0]


@dataclass(frozen=True, slots=True)
class Measured:
    """The last steps of a run, by rank.

    Attributes:
        model: class name of the model.
        ranks: steps of each rank that was found.
    """

    model: str
    ranks: Mapping[int, tuple[MeasuredStep, ...]]

    def typical(self) -> MeasuredStep:
        """The step of the first rank that took as long as half of the others."""
        steps = sorted(self.ranks[min(self.ranks)], key=lambda step: step.end - step.begin)
        return steps[(len(steps) - 1) // 2]


def read_measured(folder: Path) -> Measured:
    """All ranks that were measured, on one clock.

    Raises:
        UsageError: there are none.
        ModelError: a file is damaged or of another version.
    """
    files = sorted(folder.glob("rank-*.json"))
    if not files:
        raise UsageError(f"{folder} holds no measured step.", mend=_MEND)
    read = [_read(file) for file in files]
    # The difference of origins first: seconds since 1970 leave no digits for a part of a microsecond.
    late = {one["rank"]: one["origin"] - min(other["origin"] for other in read) for one in read}
    first = min(late[one["rank"]] + one["steps"][0]["forward"][0] for one in read)
    ranks = {one["rank"]: tuple(_step(step, late[one["rank"]] - first) for step in one["steps"]) for one in read}
    return Measured(read[0]["model"], ranks)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}.", mend=_MEND) from None
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise ModelError(f"{file} is no measurement of autopar's.", mend=_MEND)
    if found.get("version") != _VERSION:
        raise ModelError(f"{file} has version {found.get('version')!r}; this autopar reads {_VERSION}.", mend=_MEND)
    try:
        for step in found["steps"]:
            _step(step, found["origin"])
        if not found["steps"]:
            raise ValueError("it has no steps")
        return {key: found[key] for key in ("rank", "model", "origin", "steps")}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{file} is damaged: {error}.", mend=_MEND) from None


def _step(step: Mapping[str, Any], shift: float) -> MeasuredStep:
    def pair(key: str) -> tuple[float, float]:
        begin, end = step[key]
        return begin + shift, end + shift

    buckets = [
        MeasuredBucket(one["index"], one["bytes"], one["ready"] + shift, one["sent"] + shift, one["done"] + shift)
        for one in step["buckets"]
    ]
    return MeasuredStep(
        number=step["number"],
        forward=pair("forward"),
        backward=pair("backward"),
        wait=pair("wait"),
        end=step["end"] + shift,
        buckets=tuple(sorted(buckets, key=lambda one: one.sent)),
    )
