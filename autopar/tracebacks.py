"""What a model raises, as if nobody had watched it: without the frames of the watching."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import torch

from autopar.errors import AutoparError

__all__ = ["as_eager"]

ErrorT = TypeVar("ErrorT", bound=BaseException)

_OURS = str(Path(__file__).resolve().parent) + os.sep
_OVERRIDES = torch.overrides.__file__


def as_eager(error: ErrorT) -> ErrorT:
    """The same error, whose traceback (and those of the errors behind it) has the frames of an eager call.

    Our own frames are left out, and torch's detour to a function mode. Errors of ours keep theirs, and
    with ``AUTOPAR_DEBUG=1`` all do.

    Args:
        error: is to be raised by the caller, which adds the caller's own frame again.
    """
    if isinstance(error, AutoparError) or os.environ.get("AUTOPAR_DEBUG", "0") not in ("", "0"):
        return error
    one: BaseException | None = error
    seen: set[int] = set()
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        one.__traceback__ = _trimmed(one.__traceback__)
        one = one.__cause__ or one.__context__
    return error


def _trimmed(trace: TracebackType | None) -> TracebackType | None:
    kept: list[TracebackType] = []
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename == _OVERRIDES and code.co_name == "handle_torch_function":
            kept = kept[:-1]  # a function of torch's, which runs once more behind the mode
        elif not code.co_filename.startswith(_OURS):
            kept.append(trace)
        trace = trace.tb_next
    rest: TracebackType | None = None
    for entry in reversed(kept):
        rest = TracebackType(rest, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return rest
