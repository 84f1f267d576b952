"""A model that runs eagerly trains, whatever fails while it is compiled: then it runs whole."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from autopar import compat
from autopar.capture.effects import NotRunError, without_effects
from autopar.capture.source import one_line
from autopar.capture.state import preserved
from autopar.compilation import Compilation
from autopar.errors import AutoparError, InvalidProgramError, PassError

__all__ = ["or_whole"]


def or_whole(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], attempt: Callable[[str | None], Compilation]
) -> Compilation:
    """What ``attempt`` makes of the model, or of the whole model as one opaque call where a defect stops it.

    Args:
        model: the user's model.
        args, kwargs: the call.
        attempt: compiles by the front end of that name; None stands for the usual way.

    Raises:
        Exception: what is wrong with the model, the call or the options.
    """
    try:
        return attempt(None)
    except Exception as error:
        defect = isinstance(error, (PassError, InvalidProgramError))
        if not defect and (isinstance(error, AutoparError) or not _runs(model, args, kwargs)):
            raise
        failure = error
    try:
        compilation = attempt("opaque")
    except AutoparError:
        raise failure from None
    name = compat.original_class(model).__name__
    text = str(failure) if isinstance(failure, AutoparError) else one_line(failure)
    warnings.warn(
        f"autopar could not compile {name}, which runs as it is instead, with its gradients in buckets: "
        f"{text.rstrip('.')}. This is a defect of autopar's or of a pass: please report it.",
        stacklevel=2,
    )
    return compilation


def _runs(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether the model itself takes the call; it is left as it was."""
    forward = compat.original_class(model).forward
    try:
        with preserved(model), without_effects(), torch.enable_grad():
            forward(model, *args, **kwargs)
    except (Exception, NotRunError):
        return False
    return True
