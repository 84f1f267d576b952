"""Ranks that save and load together: all come to the end, or all raise the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autopar.errors import AutoparError, CheckpointError
from autopar.runtime.agreement import exchange, text_from_rank
from autopar.runtime.group import Group

__all__ = ["all_or_none", "on_rank_0", "shared"]


def shared(group: Group, value: Any) -> list[Any]:
    """Every rank's JSON value, in rank order."""
    return [value] if group.handle is None else exchange(group, value)


def on_rank_0(group: Group, action: Callable[[], str], *, what: str) -> str:
    """What ``action`` returns on rank 0, on every rank.

    Args:
        group: the ranks.
        action: called on rank 0 alone.
        what: what has not happened when it raises, as a clause.

    Raises:
        CheckpointError: it raised; on all ranks. An error of autopar's stays itself where it was raised.
    """
    failure: Exception | None = None
    text = "?"
    if group.rank == 0:
        try:
            text = f"+{action()}"
        except Exception as error:
            failure, text = error, f"-{_text(error)}"
    if group.handle is not None:
        text = text_from_rank(group, text, rank=0)
    if text[0] == "-":
        raise _error(what, text[1:], failure) from failure
    return text[1:]


def all_or_none(group: Group, action: Callable[[], Any], *, what: str) -> Any:
    """What ``action`` returns on this rank, once it has returned on every one.

    Raises:
        CheckpointError: it raised on a rank; on all of them. An error of autopar's stays itself where it was raised.
    """
    result, failure = None, None
    try:
        result = action()
    except Exception as error:
        failure = error
    texts = shared(group, None if failure is None else _text(failure))
    odd = next((rank for rank, text in enumerate(texts) if text is not None), None)
    if odd is not None:
        where = f"{what} on rank {odd} of {group.world_size}" if group.world_size > 1 else what
        raise _error(where, texts[odd], failure) from failure
    return result


def _error(what: str, text: str, failure: Exception | None) -> AutoparError:
    if isinstance(failure, AutoparError):
        return failure
    return CheckpointError(f"{what}: {' '.join(text.split()).rstrip('.')}.")


def _text(failure: Exception) -> str:
    return str(failure) if isinstance(failure, AutoparError) else f"{type(failure).__name__}: {failure}"
