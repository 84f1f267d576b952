"""What a forward does to the world outside: printing, and writing files."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["quiet_output", "watching_effects"]

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_report: Callable[[str], None] | None = None
_installed = False


class _Silent:
    """Standard output during capture: what this thread prints is dropped, since the real run prints it again."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        if threading.get_ident() != self._thread:
            return int(self._stream.write(text))
        if _report is not None:
            _report("it prints")
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def quiet_output() -> Iterator[None]:
    """Within this block what this thread prints to standard output is dropped."""
    before = sys.stdout
    sys.stdout = _Silent(before)
    try:
        yield
    finally:
        sys.stdout = before


@contextmanager
def watching_effects(report: Callable[[str], None]) -> Iterator[None]:
    """Within this block ``report`` is told what this thread does to the world outside.

    Args:
        report: gets the end of a sentence, such as ``"it prints"``.
    """
    global _report, _installed
    if not _installed:
        sys.addaudithook(_audit)  # there is no way to remove one
        _installed = True
    thread = threading.get_ident()
    _report = lambda deed: report(deed) if threading.get_ident() == thread else None  # noqa: E731
    try:
        yield
    finally:
        _report = None


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event != "open" or _report is None:
        return
    _, mode, flags = args
    if (isinstance(mode, str) and any(letter in mode for letter in "wax+")) or (flags and flags & _WRITING):
        _report("it opens a file to write to it")
