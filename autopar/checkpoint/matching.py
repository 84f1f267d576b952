"""Whether a checkpoint is of this run's model, and holds what is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from autopar.checkpoint.tensors import layout_of
from autopar.errors import CheckpointError, UnknownNameError

__all__ = ["check_extras", "check_model"]


def check_model(origin: Mapping[str, Any], model: nn.Module, folder: Path) -> None:
    """Compares names, dtypes and sizes with the model's.

    Raises:
        CheckpointError: naming the first that differs.
    """
    tensors = {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    there = {name: f"{dtype}{sizes}" for name, (dtype, sizes) in layout_of(tensors).items()}
    saved = {
        name: "{}{}".format(*origin["tensors"][value["$tensor"]])
        for name, value in origin["model"].items()
        if isinstance(value, dict) and "$tensor" in value
    }
    for name in dict.fromkeys([*there, *saved]):
        one, other = saved.get(name), there.get(name)
        if one != other:
            how = f"is {one} in the checkpoint and {other} in the model"
            if one is None or other is None:
                how = f"is in the {'model' if one is None else 'checkpoint'} alone"
            raise CheckpointError(
                f"{folder} is a checkpoint of another model: {name!r} {how}.",
                mend="Build the model as in the run that was saved.",
            )


def check_extras(
    origin: Mapping[str, Any],
    optimizer: Optimizer | None,
    loader: Any,
    extras: Mapping[str, Any],
    folder: Path,
) -> None:
    """Whether all that is to be loaded has been saved.

    Raises:
        CheckpointError: there is no optimizer or no loader in the checkpoint.
        UnknownNameError: an extra of that name was not saved.
    """
    for what, given in {"optimizer": optimizer, "loader": loader}.items():
        if given is not None and origin[what] is None:
            raise CheckpointError(
                f"{folder} holds no {what}.", mend=f"Load it with {what}=None, or save the {what} as well."
            )
    for name in extras:
        if name not in origin["extras"]:
            raise UnknownNameError(f"extra in {folder}", name, origin["extras"])
