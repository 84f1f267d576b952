"""Finds the user's line behind a traced operation or a failure."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from types import TracebackType

import torch

from autopar.program import SourceLine

__all__ = ["calling_line", "failing_line"]

_LIBRARIES = tuple(
    str(folder) + os.sep for folder in (Path(torch.__file__).parent, Path(__file__).resolve().parents[1])
)
_STANDARD = str(Path(os.__file__).parent) + os.sep


def calling_line() -> SourceLine | None:
    """The innermost line of the user's on the stack."""
    frame = sys._getframe(1)
    while frame is not None:
        if _is_users(frame.f_code.co_filename):
            return SourceLine(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back  # type: ignore[assignment]
    return None


def failing_line(error: BaseException) -> SourceLine | None:
    """The innermost line of the user's that an exception came through."""
    found: SourceLine | None = None
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        if _is_users(trace.tb_frame.f_code.co_filename):
            found = SourceLine(trace.tb_frame.f_code.co_filename, trace.tb_lineno)
        trace = trace.tb_next
    return found


@functools.cache
def _is_users(file: str) -> bool:
    # Code without a file, such as fx's own, is written "<eval_with_key>.0".
    if file.startswith(("<", *_LIBRARIES)):
        return False
    # Packages that models come from are installed below the standard library's folder.
    return not file.startswith(_STANDARD) or "site-packages" in file or "dist-packages" in file
