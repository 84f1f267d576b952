"""What a checkpoint of a model holds: plain names, and the ranks that share it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import nn

from autopar.attach import attachment_of
from autopar.nn import DataParallel, DistributedDataParallel
from autopar.partitioner.plan import Plan
from autopar.runtime.device import device_of
from autopar.runtime.group import Group, join

__all__ = ["Stateful", "follow_plan", "group_of", "plain", "plan_of"]

_WRAPPERS = (DataParallel, DistributedDataParallel, nn.DataParallel, nn.parallel.DistributedDataParallel)


@runtime_checkable
class Stateful(Protocol):
    """A schedule, a scaler, another optimizer: whatever has these two methods."""

    def state_dict(self) -> dict[str, Any]:
        """Its state."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Takes the state over."""
        ...


def plain(model: nn.Module) -> nn.Module:
    """The model within a wrapper such as DDP; the model itself where there is none."""
    while isinstance(model, _WRAPPERS):
        model = model.module
    return model


def group_of(model: nn.Module) -> Group:
    """The ranks that train this model, or all."""
    attachment = attachment_of(model)
    group = getattr(attachment.executor, "group", None) if attachment is not None else None
    if group is None and dist.is_initialized():
        group = join(device_of(model), timeout=300.0)
    return group or Group(None, 0, 1)


def plan_of(model: nn.Module) -> dict[str, Any] | None:
    """The plan that the model trains by, with what it depends on; None before its first step."""
    attachment = attachment_of(model)
    if attachment is None or attachment.compilation is None:
        return None
    return {"torch": torch.__version__, "json": attachment.compilation.plan.to_json()}


def follow_plan(model: nn.Module, saved: dict[str, Any] | None) -> None:
    """Lets the model train by the plan of the run that goes on, where nothing asks for another.

    Sums over three ranks or more depend, in the last bit, on where in its bucket a gradient stands.
    """
    attachment = attachment_of(model)
    if saved is None or attachment is None or attachment.compilation is not None or attachment.plan is not None:
        return
    plan, strategy = Plan.from_json(saved["json"]), attachment.strategy
    same_options = (plan.strategy, dict(plan.options)) == (strategy.name, dict(strategy.options()))
    if same_options and attachment.pipeline in (None, plan.pipeline) and saved["torch"] == torch.__version__:
        attachment.plan = plan
