"""``autopar.save``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from autopar.checkpoint import folder, streams
from autopar.checkpoint.document import RANKS, write_json, write_origin
from autopar.checkpoint.optimizer import by_name
from autopar.checkpoint.state import Stateful, group_of, plain, plan_of
from autopar.checkpoint.tensors import layout_of, write_tensors
from autopar.checkpoint.together import on_rank_0, shared
from autopar.checkpoint.values import Tensors, flat, pack
from autopar.errors import UsageError
from autopar.runtime.loader import ShardedLoader

__all__ = ["save"]


def save(
    model: nn.Module,
    optimizer: Optimizer | None,
    path: str | os.PathLike[str],
    *,
    step: int,
    loader: Any = None,
    extras: Mapping[str, Stateful] | None = None,
    keep: int = 2,
) -> Path:
    """Writes all that the run needs to go on as if nothing had been; every rank calls it, after the same step.

    The checkpoint is a folder ``path/step-00000020``, to which ``path/latest`` then points. It has its name only once
    it is complete: a process that dies while it writes leaves the one before as it was.

    Args:
        model: parallel or not; a wrapper such as DDP is seen through.
        optimizer: of this model's parameters; None for a model alone.
        path: the folder of the run's checkpoints, made if it is not there; rank 0 writes.
        step: how many optimizer steps the run has made.
        loader: what ``autopar.shard`` gave, to go on at the next batch; in one process with ``resumable=True``.
        extras: schedules, scalers, further optimizers: whatever has ``state_dict`` and ``load_state_dict``.
        keep: how many checkpoints stay; older ones are removed.

    Returns:
        The folder that was written.

    Raises:
        UsageError: ``keep`` below 1, or a loader that has no place to keep.
        CheckpointError: something cannot be written; raised alike on all ranks.
    """
    if keep < 1:
        raise UsageError(f"keep={keep} was given.", why="No checkpoint would stay.", mend="Give 1 or more.")
    check_loader(loader)
    model, group = plain(model), group_of(model)
    own = {"streams": streams.snapshot(), "loader": loader.state_dict() if loader is not None else None}
    ranks = shared(group, own)
    # on every rank, since one whose optimizer is sharded asks the others for their shares
    state = None if optimizer is None else by_name(optimizer, model)

    def write() -> str:
        tensors: Tensors = {}
        content = {
            "step": step,
            "world_size": group.world_size,
            "model": pack(model.state_dict(), ("model",), tensors),
            "optimizer": None if state is None else pack(state, ("optimizer",), tensors),
            "extras": {
                name: pack(extra.state_dict(), ("extras", name), tensors) for name, extra in (extras or {}).items()
            },
            "loader": ranks[0]["loader"],
            "plan": plan_of(model),
            "tensors": layout_of({flat(name): tensor for name, tensor in tensors.items()}),
        }
        unfinished, final = folder.start(Path(path), step)
        write_tensors(unfinished, tensors)
        write_json(unfinished / RANKS, [rank["streams"] for rank in ranks])
        write_origin(unfinished, content)
        folder.publish(unfinished, final)
        folder.prune(Path(path), keep)
        return str(final)

    return Path(on_rank_0(group, write, what=f"The checkpoint of step {step} in {path} was not written"))


def check_loader(loader: Any) -> None:
    """Refuses a loader that cannot say where it is.

    Raises:
        UsageError: it is neither None nor what ``autopar.shard`` makes.
    """
    if loader is not None and not isinstance(loader, ShardedLoader):
        raise UsageError(
            f"The loader is a {type(loader).__name__}, which has no place that a checkpoint could keep.",
            mend="Give what autopar.shard(loader, resumable=True) returns, or no loader=.",
        )
