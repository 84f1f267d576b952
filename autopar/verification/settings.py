"""What a verification is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from autopar.errors import OptionError, UnknownNameError
from autopar.partitioner.plan import Plan
from autopar.strategies.base import Strategy, resolve

__all__ = ["OPTIMIZERS", "Settings"]

_Arguments = dict[str, Any]
# With momentum where there is a choice, so that what an optimizer remembers is compared, too.
OPTIMIZERS: Mapping[str, tuple[type[torch.optim.Optimizer], _Arguments]] = {
    "adadelta": (torch.optim.Adadelta, {}),
    "adagrad": (torch.optim.Adagrad, {}),
    "adam": (torch.optim.Adam, {}),
    "adamax": (torch.optim.Adamax, {}),
    "adamw": (torch.optim.AdamW, {}),
    "nadam": (torch.optim.NAdam, {}),
    "radam": (torch.optim.RAdam, {}),
    "rmsprop": (torch.optim.RMSprop, {"momentum": 0.9}),
    "sgd": (torch.optim.SGD, {"lr": 0.01, "momentum": 0.9}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How both trainings run.

    Attributes:
        strategy: a registered name or a strategy object.
        options: options of the strategy, for a name.
        pipeline: another pass pipeline than the strategy's, as text.
        plan: a plan to follow.
        capture: the front end, as for ``autopar.parallelize``.
        nproc: ranks, or replicas of ``data_parallel``.
        steps: training steps.
        optimizer: a name in ``OPTIMIZERS``.
        lr: learning rate; None is the optimizer's default (0.01 for sgd).
        timeout: seconds that ranks wait for each other.

    Raises:
        OptionError, UnknownNameError: a value is out of range or not known.
    """

    strategy: str | Strategy = "ddp"
    options: Mapping[str, Any] = field(default_factory=dict)
    pipeline: str | None = None
    plan: Plan | None = None
    capture: str = "auto"
    nproc: int = 2
    steps: int = 5
    optimizer: str = "adamw"
    lr: float | None = None
    timeout: float = 120.0

    def __post_init__(self) -> None:
        if self.nproc < 2:
            raise OptionError(
                f"--nproc {self.nproc} was given.", why="One process has nobody to agree with.", mend="Give 2 or more."
            )
        if self.steps < 1:
            raise OptionError(f"--steps {self.steps} was given.", mend="Give 1 or more.")
        if self.lr is not None and not self.lr > 0:
            raise OptionError(f"--lr {self.lr} was given.", mend="Give a number above 0.")
        if self.optimizer not in OPTIMIZERS:
            raise UnknownNameError("optimizer", self.optimizer, OPTIMIZERS)

    def strategy_object(self) -> Strategy:
        """The strategy; ``data_parallel`` with ``nproc`` replicas unless its options say how many."""
        options = dict(self.options)
        if self.strategy == "data_parallel" and "devices" not in options:
            options.setdefault("replicas", self.nproc)
        return resolve(self.strategy, options)

    def make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of the model's trainable parameters."""
        cls, arguments = OPTIMIZERS[self.optimizer]
        given = arguments if self.lr is None else {**arguments, "lr": self.lr}
        return cls([p for p in model.parameters() if p.requires_grad], **given)
