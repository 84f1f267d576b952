"""What a call weighs: its samples, its tokens, or what a function of the user's says."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import nn

from autopar import compat
from autopar.errors import OptionError, RuntimeStateError

__all__ = ["Weigh", "Weight", "measure_of", "name_of"]

Weight: TypeAlias = "str | Callable[..., Any]"
Weigh: TypeAlias = Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any]], float]

_IGNORED = -100  # the ignore_index of torch's losses


def measure_of(weight: Weight) -> Weigh:
    """The function that weighs calls.

    Args:
        weight: ``"samples"``, ``"tokens"``, ``"module:function"``, or a function of the call's arguments.

    Raises:
        OptionError: it is none of these, or there is no such function.
    """
    if isinstance(weight, str) and weight in _MEASURES:
        return _MEASURES[weight]
    function = _imported(weight) if isinstance(weight, str) else weight
    if not callable(function):
        raise OptionError(
            f"The option weight is {weight!r}.", mend='Say "samples", "tokens", or give a function of the call.'
        )
    return lambda model, args, kwargs: _number(function(*args, **kwargs))


def name_of(weight: Weight | None) -> str | None:
    """The weight as text that ``measure_of`` takes; a function is its place, ``"module:function"``."""
    if weight is None or isinstance(weight, str):
        return weight
    owner = weight if hasattr(weight, "__qualname__") else type(weight)
    return f"{owner.__module__}:{owner.__qualname__}"


def _imported(text: str) -> Callable[..., Any]:
    place, colon, path = text.partition(":")
    try:
        if not (colon and path):
            raise ImportError("it is neither of these")
        found: Any = importlib.import_module(place)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise OptionError(
            f"The option weight is {text!r}, which names no function: {error}.",
            mend='Say "samples", "tokens", or "module:function" of a function that can be imported.',
        ) from None
    function: Callable[..., Any] = found
    return function


def _samples(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float:
    for tensor in _tensors(args, kwargs):
        if tensor.dim():
            return float(tensor.shape[0])
    raise RuntimeStateError(
        'weight="samples" found no tensor with a batch dim in the call.', mend="Give a function of the call instead."
    )


def _tokens(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float:
    named = _by_name(model, args, kwargs)
    if isinstance(labels := named.get("labels"), torch.Tensor):
        return _number((labels != _IGNORED).sum())
    if isinstance(mask := named.get("attention_mask"), torch.Tensor):
        return _number(mask.sum())
    for tensor in _tensors(args, kwargs):
        if not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool):
            return float(tensor.numel())
    raise RuntimeStateError(
        'weight="tokens" found no labels, no attention_mask and no integer tensor in the call.',
        mend='Say "samples", or give a function of the call.',
    )


_MEASURES: dict[str, Weigh] = {"samples": _samples, "tokens": _tokens}


def _tensors(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    return [leaf for leaf in compat.tree_flatten((args, dict(kwargs)))[0] if isinstance(leaf, torch.Tensor)]


def _by_name(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        bound = inspect.signature(compat.original_class(model).forward).bind(model, *args, **kwargs)
    except TypeError:  # a stand-in for forward has other parameters
        return kwargs
    return {**bound.arguments, **kwargs}


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise RuntimeStateError(
            f"The function given as weight= returned {type(value).__name__} {value!r}.", mend="It must give one number."
        ) from None
