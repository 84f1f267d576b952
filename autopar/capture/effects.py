"""What a forward does to the world outside while it is captured: it is noticed, and it does not happen.

The step itself does it, once, as it would without a capture: printing is dropped here, files are
written elsewhere, and what could not be taken back (a file removed, a process started) is refused
before it happens.
"""

from __future__ import annotations

import builtins
import io
import logging
import os
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from autopar.capture.source import is_installed, is_users

__all__ = ["Effects", "NotRunError", "watching_effects", "without_effects"]

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_LASTING = {
    "os.remove": "removes a file", "os.rename": "renames a file", "os.rmdir": "removes a folder",
    "os.truncate": "cuts a file", "shutil.rmtree": "removes a folder", "shutil.move": "moves a file",
    "subprocess.Popen": "starts a process", "os.system": "starts a process", "os.posix_spawn": "starts a process",
    "os.fork": "starts a process", "socket.connect": "opens a connection", "socket.sendto": "sends a message",
}  # fmt: skip
_STANDARD = str(Path(os.__file__).parent) + os.sep
_WARNINGS = str(warnings.__file__)
_HERE = __file__

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
        return self._open(self.place(file, mode), mode, *args, **kwargs)

    def place(self, file: Any, mode: str) -> Any:
        """The copy in whose place a file of this name is opened, or the file."""
        path = os.path.abspath(os.fsdecode(file))
        if any(letter in mode for letter in "wax+") and path not in self._copies and _is_replaceable(path, mode):
            self.note("it opens a file to write to it")
            self._copies[path] = self._copy(path)
        return self._copies.get(path, file)

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
    """A standard stream meanwhile: what this thread's forward prints is dropped.

    Args:
        stream: the stream itself.
        effects: are told.
        dropped: decides from the stack whether a text is the forward's.
    """

    def __init__(self, stream: Any, effects: Effects, dropped: Callable[[], bool]) -> None:
        self._stream, self._effects, self._dropped = stream, effects, dropped

    def write(self, text: str) -> int:
        if not self._effects.ours or not self._dropped():
            return int(self._stream.write(text))
        self._effects.note("it prints")
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _replacements(effects: Effects) -> list[tuple[Any, str, Any]]:
    """Where a forward's effects go by, as owner, attribute and what stands there meanwhile."""
    handle, save = logging.Logger.handle, torch.save

    def handled(logger: logging.Logger, record: logging.LogRecord) -> None:
        if effects.ours and _is_forward_s(installed=False):
            effects.note("it logs")
        else:
            handle(logger, record)

    def saved(obj: Any, f: Any, *args: Any, **kwargs: Any) -> None:
        save(obj, effects.place(f, "w") if effects.ours and isinstance(f, (str, os.PathLike)) else f, *args, **kwargs)

    return [
        (sys, "stdout", _Silent(sys.stdout, effects, lambda: True)),
        # Warnings and progress come this way, too: only the user's own words are the forward's.
        (sys, "stderr", _Silent(sys.stderr, effects, lambda: _is_forward_s(installed=False))),
        (builtins, "open", effects.open),
        (io, "open", effects.open),
        (logging.Logger, "handle", handled),
        (torch, "save", saved),
    ]


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
    replaced = [(owner, name, getattr(owner, name), other) for owner, name, other in _replacements(effects)]
    _current = effects
    for owner, name, _, other in replaced:
        setattr(owner, name, other)
    try:
        yield effects
    finally:
        for owner, name, before, _ in replaced:
            setattr(owner, name, before)
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


def _is_forward_s(*, installed: bool = True) -> bool:
    """Whether a model's own code does this, by way of the standard library or not, and not torch or an import.

    Args:
        installed: whether installed libraries count as the model's code.
    """
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if is_users(file):
            return installed or not is_installed(file)
        if file.startswith(("<frozen importlib", _WARNINGS)) or is_installed(file):
            return False
        if not file.startswith((_STANDARD, "<", _HERE)):
            return False
        frame = frame.f_back  # type: ignore[assignment]
    return False
