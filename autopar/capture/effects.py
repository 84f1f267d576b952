"""What a forward does to the world outside while it is captured: it is noticed, and it does not happen.

The step itself does it, once, as it would without a capture: printing is dropped here, files are
written elsewhere, and what could not be taken back (a file removed, a process started) is refused
before it happens.
"""

from __future__ import annotations

import builtins
import io
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autopar.capture.source import is_users

__all__ = ["Effects", "NotRunError", "watching_effects", "without_effects"]

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_LASTING = {
    "os.remove": "removes a file", "os.rename": "renames a file", "os.rmdir": "removes a folder",
    "os.truncate": "cuts a file", "shutil.rmtree": "removes a folder", "shutil.move": "moves a file",
    "subprocess.Popen": "starts a process", "os.system": "starts a process", "os.posix_spawn": "starts a process",
    "os.fork": "starts a process", "socket.connect": "opens a connection", "socket.sendto": "sends a message",
}  # fmt: skip
_STANDARD = str(Path(os.__file__).parent) + os.sep

_current: Effects | None = None
_installed = False


class NotRunError(BaseException):
    """A forward was about to do what cannot be undone; the message is the end of a sentence.

    No ``Exception``, so that no handler of the user's takes it for an error of the model's.
    """


class Effects:
    """The effects of what this thread does.

    Attributes:
        deeds: ends of sentences, such as ``"it prints"``; each once, in order.
        listener: is told each deed when it is done; None where nobody asks.
    """

    def __init__(self) -> None:
        self.deeds: dict[str, None] = {}
        self.listener: Callable[[str], None] | None = None
        self._thread = threading.get_ident()
        self._open: Callable[..., Any] = builtins.open
        self._folder: str | None = None
        self._copies: dict[str, str] = {}  # by absolute path

    @property
    def ours(self) -> bool:
        """Whether this is the thread that is watched."""
        return threading.get_ident() == self._thread

    def note(self, deed: str) -> None:
        """Something was done."""
        self.deeds[deed] = None
        if self.listener is not None:
            self.listener(deed)

    def open(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        """``open``, on a copy of the file where it is for writing, and of what was written so far."""
        if not self.ours or isinstance(file, int) or not isinstance(mode, str):
            return self._open(file, mode, *args, **kwargs)
        path = os.path.abspath(os.fsdecode(file))
        if any(letter in mode for letter in "wax+") and path not in self._copies and _is_replaceable(path, mode):
            self.note("it opens a file to write to it")
            self._copies[path] = self._copy(path)
        return self._open(self._copies.get(path, file), mode, *args, **kwargs)

    def _copy(self, path: str) -> str:
        if self._folder is None:
            self._folder = tempfile.mkdtemp(prefix="autopar-")
        copy = os.path.join(self._folder, str(len(self._copies)))
        if os.path.exists(path):
            shutil.copyfile(path, copy)
        return copy

    def close(self) -> None:
        """Throws away what was written."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _is_replaceable(path: str, mode: str) -> bool:
    """Whether a file could be opened so: an error is the real place's, and devices are no files."""
    if os.path.exists(path):
        return os.path.isfile(path) and "x" not in mode and os.access(path, os.W_OK)
    return os.path.isdir(os.path.dirname(path)) and not mode.startswith("r")


class _Silent:
    """Standard output meanwhile: what this thread prints is dropped."""

    def __init__(self, stream: Any, effects: Effects) -> None:
        self._stream, self._effects = stream, effects

    def write(self, text: str) -> int:
        if not self._effects.ours:
            return int(self._stream.write(text))
        self._effects.note("it prints")
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def without_effects() -> Iterator[Effects]:
    """Within this block what this thread prints is dropped, and what it writes to files is thrown away.

    Raises:
        NotRunError: it was about to do something that cannot be kept from lasting.
    """
    global _current, _installed
    if not _installed:
        sys.addaudithook(_audit)  # there is no way to remove one
        _installed = True
    outer, effects = _current, Effects()
    before = sys.stdout, builtins.open, io.open
    _current = effects
    sys.stdout, builtins.open, io.open = _Silent(before[0], effects), effects.open, effects.open
    try:
        yield effects
    finally:
        sys.stdout, builtins.open, io.open = before
        _current = outer
        effects.close()


@contextmanager
def watching_effects(listener: Callable[[str], None]) -> Iterator[None]:
    """Within this block, inside of ``without_effects``, ``listener`` is told what this thread does.

    Args:
        listener: gets the end of a sentence, such as ``"it prints"``.
    """
    effects = _current
    assert effects is not None, "there are effects to watch within without_effects() only"
    effects.listener = listener
    try:
        yield
    finally:
        effects.listener = None


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _current is None or (event != "open" and event not in _LASTING) or not _current.ours:
        return
    if event == "open":
        _, mode, flags = args
        writes = (isinstance(mode, str) and any(letter in mode for letter in "wax+")) or (flags and flags & _WRITING)
        if writes and _is_forward_s():
            _current.note("it opens a file to write to it")
    elif _is_forward_s():
        deed = f"it {_LASTING[event]}"
        _current.note(deed)
        raise NotRunError(deed)


def _is_forward_s() -> bool:
    """Whether a model's own code does this, by way of the standard library or not, and not torch or an import."""
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if is_users(file):
            return True
        if file.startswith("<frozen importlib") or not file.startswith((_STANDARD, "<")) or "site-packages" in file:
            return False
        frame = frame.f_back  # type: ignore[assignment]
    return False
