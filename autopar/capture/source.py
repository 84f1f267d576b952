"""Finds the user's line behind a traced operation or a failure."""

from __future__ import annotations

import functools
import os
import re
import sys
from pathlib import Path

import torch
from torch import nn

from autopar import compat
from autopar.program import SourceLine

__all__ = ["calling_line", "forward_line", "is_installed", "is_users", "line_of_trace", "one_line"]

_LIBRARIES = tuple(
    str(folder) + os.sep for folder in (Path(torch.__file__).parent, Path(__file__).resolve().parents[1])
)
_STANDARD = str(Path(os.__file__).parent) + os.sep


def calling_line() -> SourceLine | None:
    """The innermost line of the user's on the stack."""
    frame = sys._getframe(1)
    while frame is not None:
        if is_users(frame.f_code.co_filename):
            return SourceLine(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back  # type: ignore[assignment]
    return None


def forward_line(module: nn.Module) -> SourceLine | None:
    """Where the module's forward begins."""
    code = getattr(getattr(compat.original_class(module), "forward", None), "__code__", None)
    return None if code is None else SourceLine(code.co_filename, code.co_firstlineno)


def line_of_trace(trace: str) -> SourceLine | None:
    """The innermost line of the user's in a stack that was written down as text."""
    for file, line in reversed(_TRACED.findall(trace)):
        if is_users(file):
            return SourceLine(file, int(line))
    return None


def one_line(error: BaseException) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {str(error).strip()}".split("\n", 1)[0].rstrip(": .")


_TRACED = re.compile(r'File "([^"]+)", line (\d+)')


@functools.cache
def is_users(file: str) -> bool:
    """Whether code of this file is the user's or a model library's: neither ours, nor torch's, nor Python's."""
    # Code without a file, such as fx's own, is written "<eval_with_key>.0".
    if file.startswith(("<", *_LIBRARIES)):
        return False
    # Packages that models come from are installed below the standard library's folder.
    return not file.startswith(_STANDARD) or is_installed(file)


def is_installed(file: str) -> bool:
    """Whether a file belongs to an installed package."""
    return "site-packages" in file or "dist-packages" in file
