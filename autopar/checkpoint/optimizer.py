"""An optimizer's state under the names of the parameters, in the place of their numbers."""

from __future__ import annotations

import itertools
from typing import Any

from torch import nn
from torch.optim import Optimizer

from autopar.errors import CheckpointError

__all__ = ["by_name", "by_number"]


def by_name(optimizer: Optimizer, model: nn.Module) -> dict[str, Any]:
    """``optimizer.state_dict()`` as ``get_optimizer_state_dict`` of torch lays it out, for a plain model.

    Raises:
        CheckpointError: it holds a parameter that is not the model's.
    """
    names = _names(optimizer, model)
    state = optimizer.state_dict()
    groups = [{**group, "params": [names[number] for number in group["params"]]} for group in state["param_groups"]]
    return {"state": {names[number]: own for number, own in state["state"].items()}, "param_groups": groups}


def by_number(named: dict[str, Any], optimizer: Optimizer, model: nn.Module) -> dict[str, Any]:
    """What ``optimizer.load_state_dict`` takes; asks no other rank.

    Raises:
        CheckpointError: its groups hold other parameters than those in the checkpoint.
    """
    names = _names(optimizer, model)
    count = itertools.count()
    groups = [[next(count) for _ in group["params"]] for group in optimizer.param_groups]
    found = [[names[number] for number in numbers] for numbers in groups]
    saved = [group["params"] for group in named["param_groups"]]
    if found != saved:
        place = next((n for n, (one, other) in enumerate(zip(found, saved, strict=False)) if one != other), None)
        where = f"group {place} has" if place is not None else f"it has {len(found)} groups and not {len(saved)}, of"
        raise CheckpointError(
            f"The {type(optimizer).__name__} groups the parameters otherwise than the checkpoint: {where} others.",
            mend="Make the optimizer as in the run that was saved, or load with optimizer=None.",
        )
    number = {name: number for number, name in names.items()}
    state = {number[name]: own for name, own in named["state"].items()}
    pairs = zip(named["param_groups"], groups, strict=True)
    return {"state": state, "param_groups": [{**saved, "params": numbers} for saved, numbers in pairs]}


def _names(optimizer: Optimizer, model: nn.Module) -> dict[int, str]:
    """Numbers of the optimizer's parameters to their names in the model."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    strangers = [number for number, parameter in enumerate(parameters) if id(parameter) not in names]
    if strangers:
        raise CheckpointError(
            f"Parameter {strangers[0]} of the {type(optimizer).__name__} is not one of the model's.",
            why="A checkpoint names what it holds, and this one has no name.",
            mend="Give the model that the optimizer trains; further optimizers belong under extras.",
        )
    return {number: names[id(parameter)] for number, parameter in enumerate(parameters)}
