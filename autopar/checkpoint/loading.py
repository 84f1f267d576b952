"""``autopar.load``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from autopar.checkpoint import folder, streams
from autopar.checkpoint.document import RANKS, read_json, read_origin
from autopar.checkpoint.matching import check_extras, check_model
from autopar.checkpoint.optimizer import by_number
from autopar.checkpoint.saving import check_loader
from autopar.checkpoint.state import Stateful, follow_plan, group_of, plain
from autopar.checkpoint.tensors import read_tensors
from autopar.checkpoint.together import all_or_none, on_rank_0
from autopar.checkpoint.values import unpack
from autopar.errors import CheckpointError

__all__ = ["Checkpoint", "load"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What was loaded.

    Attributes:
        step: how many optimizer steps the run had made.
        world_size: how many ranks it had.
        path: the folder.
    """

    step: int
    world_size: int
    path: Path


def load(
    model: nn.Module,
    optimizer: Optimizer | None,
    path: str | os.PathLike[str],
    *,
    loader: Any = None,
    extras: Mapping[str, Stateful] | None = None,
    missing_ok: bool = False,
) -> Checkpoint | None:
    """Puts a run back to where ``autopar.save`` left it; every rank calls it, and can read the folder.

    With as many ranks as then, the run goes on bit for bit as if it had not been interrupted. With another number,
    no sample of the epoch is read twice or left out, and random numbers go on in new streams.

    Args:
        model: as it was then; call ``parallelize`` before.
        optimizer: as it was then; None leaves the saved one alone.
        path: the folder of the run, for the latest checkpoint, or that of one checkpoint.
        loader: what ``autopar.shard`` gave; its next iteration goes on at the next batch.
        extras: under the names that they were saved under.
        missing_ok: return None where there is no checkpoint yet.

    Raises:
        CheckpointError: none there, damaged, of a newer format, or of another model: it names the first difference;
            raised alike on all ranks, and before anything has been changed.
        UsageError: a loader that has no place to set.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from autopar import save
        >>> model = nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with TemporaryDirectory() as path:
        ...     first = load(model, optimizer, path, missing_ok=True)
        ...     _ = save(model, optimizer, path, step=20)
        ...     first, load(model, optimizer, path).step
        (None, 20)
    """
    check_loader(loader)
    group, model = group_of(model), plain(model)
    found = on_rank_0(group, lambda: str(folder.find(Path(path)) or ""), what=f"{path} cannot be read")
    if not found:
        if missing_ok:
            return None
        raise CheckpointError(
            f"There is no checkpoint in {path}.", mend="Give the folder that autopar.save wrote to, or missing_ok=True."
        )
    chosen = Path(found)

    def read() -> tuple[dict[str, Any], list[Any], dict[str, torch.Tensor], dict[str, Any] | None]:
        origin = read_origin(chosen)
        check_model(origin, model, chosen)
        check_extras(origin, optimizer, loader, extras or {}, chosen)
        ranks = read_json(chosen / RANKS)
        tensors = read_tensors(chosen, origin["tensors"])
        state = None if optimizer is None else by_number(unpack(origin["optimizer"], tensors), optimizer, model)
        return origin, ranks, tensors, state

    origin, ranks, tensors, state = all_or_none(group, read, what=f"{chosen} was not loaded")
    if optimizer is not None:
        optimizer.load_state_dict(state)
    model.load_state_dict(unpack(origin["model"], tensors))
    for name, extra in (extras or {}).items():
        extra.load_state_dict(unpack(origin["extras"][name], tensors))
    if loader is not None:
        loader.load_state_dict(origin["loader"])
    if origin["world_size"] == group.world_size:
        follow_plan(model, origin["plan"])
    streams.restore(ranks, group.rank, group.world_size)
    return Checkpoint(step=origin["step"], world_size=origin["world_size"], path=chosen)
