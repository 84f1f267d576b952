"""An optimizer that keeps the state of this rank's share of the parameters alone (ZeRO stage 1).

The method is that of Rajbhandari et al. (SC 2020): each rank updates an equal share of the elements and takes the
others from the ranks that updated them. Which those are follows from the order of the optimizer's parameters.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from autopar.errors import UsageError
from autopar.runtime.agreement import check_equal
from autopar.runtime.collectives import Collectives
from autopar.runtime.group import Group
from autopar.runtime.sharding.elementwise import refusal_of
from autopar.runtime.sharding.segments import Segment, segments_of
from autopar.runtime.sharding.state import gathered, share_of

__all__ = ["ShardedOptimizer"]


class ShardedOptimizer:
    """Makes ``step`` of an optimizer update this rank's share, and then collect the others' shares.

    Outside of ``step`` the optimizer shows the user's parameters, so that schedules, scalers, ``zero_grad`` and
    gradient clipping work as ever. ``state_dict`` is that of an unsharded optimizer, and is a message to all ranks:
    every rank has to ask for it. Parameters without dims, and what ``own`` names, every rank updates whole.

    Args:
        optimizer: of parameters of ``model``; it may have state already.
        model: the user's model, equal on all ranks.
        group: the ranks.
        connect: what carries the shares, called on all ranks at the same point.
        own: names of parameters that ranks do not share.

    Raises:
        UsageError: the optimizer has parameters of another model, or does not update each element by itself.
        RankMismatchError: the ranks' optimizers differ; raised alike on all of them.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        model: nn.Module,
        group: Group,
        connect: Callable[[], Collectives],
        *,
        own: Collection[str] = (),
    ) -> None:
        self.optimizer, self.group = optimizer, group
        self._connect = connect
        names = {parameter: name for name, parameter in model.named_parameters()}
        self._own = {parameter for parameter, name in names.items() if name in own}
        _check(optimizer, names)
        check_equal(group, _described(optimizer, names), what="optimizer")
        self._segments: list[Segment] = []
        self._pieces: dict[nn.Parameter, nn.Parameter] = {}
        self._places: dict[nn.Parameter, Segment] = {}
        self._shared: list[nn.Parameter] = []
        self._state: defaultdict[Any, Any] = defaultdict(dict)
        self._outside: tuple[list[list[nn.Parameter]], Any] | None = None
        self._divide()
        self._hooks = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
            optimizer.register_state_dict_pre_hook(self._before_state_dict),
            optimizer.register_state_dict_post_hook(self._after_state_dict),
            optimizer.register_load_state_dict_post_hook(self._after_load),
        ]

    @property
    def state_nbytes(self) -> int:
        """Bytes of the state's tensors on this rank."""
        states = [*self._state.values(), *self.optimizer.state.values()]
        return sum(v.nbytes for state in states for v in state.values() if isinstance(v, torch.Tensor))

    def release(self) -> None:
        """Makes the optimizer an ordinary one again, with all of its state; called on all ranks."""
        self._restore()
        self.optimizer.state = self._whole_state()
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    # layout -----------------------------------------------------------------------------------

    def _divide(self) -> None:
        """Lays the parameters side by side, and keeps this rank's share of the state that there is."""
        self._shared = self._divisible()
        self._segments = segments_of(self._shared, rank=self.group.rank, world_size=self.group.world_size)
        self._places = {parameter: segment for segment in self._segments for parameter in segment.parameters}
        self._pieces = {p: piece for segment in self._segments for p, piece in segment.pieces.items()}
        self._take_state()

    def _take_state(self) -> None:
        state = self.optimizer.state
        self._state.clear()
        for parameter in self._shared:
            whole = state.pop(parameter, None)
            if whole and parameter in self._pieces:
                self._state[self._pieces[parameter]] = share_of(whole, parameter, self._places[parameter])

    def _divisible(self) -> list[nn.Parameter]:
        every = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        return [p for p in every if p.dim() > 0 and p.numel() > 0 and p not in self._own]

    def _fits(self) -> bool:
        """Whether nothing was moved or added since the parameters were divided."""
        same = list(map(id, self._divisible())) == list(map(id, self._shared))
        return same and all(segment.holds() for segment in self._segments)

    def _whole_state(self) -> defaultdict[Any, Any]:
        """The state by the user's parameters, collected from all ranks."""
        whole: defaultdict[Any, Any] = defaultdict(dict, self.optimizer.state)
        whole.update(gathered(self._state, self._segments, self.group, self._connect()))
        return whole

    # around a step ----------------------------------------------------------------------------

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self._restore()
        if not self._fits():
            optimizer.state = self._whole_state()
            self._divide()
        self._swap()
        # a closure is the only function that a step takes; args begin with the optimizer itself
        wrapped = [self._around(arg) if callable(arg) else arg for arg in args]
        return tuple(wrapped), {name: self._around(arg) if callable(arg) else arg for name, arg in kwargs.items()}

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._restore()
        collectives = self._connect()
        label = f"the parameters that {type(optimizer).__name__} has updated"
        for work in [segment.gather(collectives, label) for segment in self._segments]:
            work.wait()

    def _swap(self) -> None:
        """Lets the optimizer see this rank's share, with gradients and state."""
        optimizer = self.optimizer
        groups = [group["params"] for group in optimizer.param_groups]
        self._outside = groups, optimizer.state
        for parameter, piece in self._pieces.items():
            gradient = parameter.grad
            piece.grad = None if gradient is None else self._places[parameter].part(parameter, gradient)
        for group, parameters in zip(optimizer.param_groups, groups, strict=True):
            stand_ins = [self._pieces.get(p) if p in self._places else p for p in parameters]
            group["params"] = [parameter for parameter in stand_ins if parameter is not None]
        self._state.update(optimizer.state)  # of what every rank updates
        optimizer.state = self._state

    def _restore(self) -> None:
        """Shows the user's parameters again; nothing where they are shown."""
        if self._outside is None:
            return
        groups, whole = self._outside
        self._outside = None
        for group, parameters in zip(self.optimizer.param_groups, groups, strict=True):
            group["params"] = parameters
            for parameter in parameters:
                if parameter not in self._places and parameter in self._state:
                    whole[parameter] = self._state.pop(parameter)
        self.optimizer.state = whole
        for piece in self._pieces.values():
            piece.grad = None

    def _around(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """A closure sees the user's parameters, and leaves their gradients."""

        def run() -> Any:
            self._restore()
            loss = closure()
            self._swap()
            return loss

        return run

    # state dicts ------------------------------------------------------------------------------

    def _before_state_dict(self, optimizer: Optimizer) -> None:
        self._restore()
        self._outside = [group["params"] for group in optimizer.param_groups], optimizer.state
        optimizer.state = self._whole_state()

    def _after_state_dict(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        assert self._outside is not None
        _, optimizer.state = self._outside
        self._outside = None

    def _after_load(self, optimizer: Optimizer) -> None:
        self._take_state()


def _check(optimizer: Optimizer, names: Mapping[nn.Parameter, str]) -> None:
    kind = type(optimizer).__name__
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter not in names:
                raise UsageError(
                    f"The {kind} has a parameter of shape {tuple(parameter.shape)} that is none of the model's.",
                    why="Its ranks would not know who updates it.",
                    mend="Give the optimizer of this model, made of model.parameters().",
                )
    reason = refusal_of(optimizer)
    if reason is not None:
        raise UsageError(
            f"The {kind} cannot be divided among ranks: {reason}.",
            why="Each rank updates a part of a parameter, which takes an optimizer that treats each element by itself.",
            mend="Use strategy 'ddp', or an optimizer such as AdamW or SGD.",
        )


def _described(optimizer: Optimizer, names: Mapping[nn.Parameter, str]) -> dict[str, str]:
    items = {"optimizer": type(optimizer).__name__}
    for number, group in enumerate(optimizer.param_groups):
        options = {name: value for name, value in group.items() if name != "params"}
        items[f"options of group {number}"] = repr(options)
        items[f"parameters of group {number}"] = ", ".join(names[parameter] for parameter in group["params"])
    return items
