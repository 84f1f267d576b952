"""Optimizer state between one rank's share and the whole, parameter by parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import nn

from autopar.runtime.agreement import exchange
from autopar.runtime.collectives import Collectives
from autopar.runtime.group import Group
from autopar.runtime.sharding.segments import Segment

__all__ = ["State", "gathered", "share_of"]

State: TypeAlias = Mapping[nn.Parameter, Mapping[str, Any]]


def share_of(state: Mapping[str, Any], parameter: nn.Parameter, segment: Segment) -> dict[str, Any]:
    """This rank's share of one parameter's state: a part of what has the parameter's shape, all of the rest."""
    return {
        name: segment.part(parameter, value).clone() if _is_of_elements(value, parameter) else value
        for name, value in state.items()
    }


def gathered(
    state: State, segments: Sequence[Segment], group: Group, collectives: Collectives
) -> dict[nn.Parameter, dict[str, Any]]:
    """The whole state of the segments' parameters, on every rank; called on all of them.

    Args:
        state: this rank's, by the pieces.
        segments: the same on every rank but for the pieces.
        group, collectives: the ranks, and what carries the shares.
    """
    whole: dict[nn.Parameter, dict[str, Any]] = {}
    for segment in segments:
        mine = [_outline(state, segment.pieces.get(parameter)) for parameter in segment.parameters]
        every = exchange(group, mine) if group.handle is not None else [mine]
        outlines = [_first(column) for column in zip(*every, strict=True)]
        for parameter, outline in zip(segment.parameters, outlines, strict=True):
            if outline:
                whole[parameter] = {name: _value(said, parameter) for name, said in outline.items()}
        kinds = {(name, said["each"]) for outline in outlines for name, said in outline.items() if "each" in said}
        for name, dtype in sorted(kinds):
            flat = segment.lay_out(_named(state, name), getattr(torch, dtype))
            segment.gather_into(collectives, flat, f"the optimizer's {name}").wait()
            for (parameter, offset), outline in zip(segment.places(), outlines, strict=True):
                if outline.get(name) == {"each": dtype}:
                    whole[parameter][name] = flat.as_strided(parameter.shape, parameter.stride(), offset).clone()
    return whole


def _first(outlines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """That of a rank which has a piece, with state; they all say the same."""
    return next((outline for outline in outlines if outline), {})


def _named(state: State, name: str) -> Callable[[nn.Parameter], torch.Tensor | None]:
    return lambda piece: state.get(piece, {}).get(name)


def _is_of_elements(value: Any, parameter: nn.Parameter) -> bool:
    return isinstance(value, torch.Tensor) and value.shape == parameter.shape


def _outline(state: State, piece: nn.Parameter | None) -> dict[str, Any]:
    """What a piece's state has, as JSON: of values for each element the dtype, of everything else the value."""
    found: dict[str, Any] = {}
    if piece is None:
        return found
    for name, value in state.get(piece, {}).items():
        if not isinstance(value, torch.Tensor):
            found[name] = {"value": value}
        elif _is_of_elements(value, piece):
            found[name] = {"each": _name_of(value.dtype)}
        else:
            found[name] = {"tensor": value.tolist(), "dtype": _name_of(value.dtype), "device": value.device.type}
    return found


def _value(said: Mapping[str, Any], parameter: nn.Parameter) -> Any:
    """What an outline says; of values for each element nothing yet."""
    if "tensor" in said:
        device = parameter.device if said["device"] == parameter.device.type else torch.device(said["device"])
        return torch.tensor(said["tensor"], dtype=getattr(torch, said["dtype"]), device=device)
    return said.get("value")


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
