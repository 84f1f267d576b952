"""What the processes of a verification send each other: tensors, numbers and texts, never code."""

from __future__ import annotations

import io
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import torch

from autopar import errors
from autopar.errors import AutoparError, CheckFailedError

__all__ = ["as_error", "described", "receive", "send"]


def send(pipe: Connection, kind: str, **content: Any) -> None:
    """Sends one message."""
    buffer = io.BytesIO()
    torch.save({"kind": kind, **content}, buffer)
    pipe.send_bytes(buffer.getvalue())


def receive(pipe: Connection) -> dict[str, Any]:
    """The next message.

    Raises:
        EOFError: the other process has ended.
    """
    message: dict[str, Any] = torch.load(io.BytesIO(pipe.recv_bytes()), weights_only=True)
    return message


def described(error: BaseException) -> dict[str, Any]:
    """An exception as the content of a message."""
    if isinstance(error, AutoparError):
        parts = {"what": error.what, "why": error.why, "mend": error.mend, "code": error.code}
        return {"error": type(error).__name__, **parts}
    first = str(error).strip().partition("\n")[0].rstrip(".")
    return {"error": "", "what": f"{type(error).__name__}: {first}.", "why": "", "mend": "", "code": None}


def as_error(content: Mapping[str, Any], where: str) -> AutoparError:
    """The exception that such a content describes, said of a place; of the same class where it was autopar's."""
    cls = getattr(errors, content["error"], CheckFailedError) if content["error"] else CheckFailedError
    error: AutoparError = cls.__new__(cls)
    what = f"{where}: {content['what']}"
    AutoparError.__init__(error, what, why=content["why"], mend=content["mend"], code=content["code"])
    return error
