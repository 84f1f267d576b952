"""What a rank writes down about the exception that ends it, for the launcher's closing sentence.

torchrun gives every rank the path of an error file and copies the first one to the file of whoever
started torchrun; ``torch.distributed.elastic.multiprocessing.errors`` documents both. This is that
file, with what torch's lacks: the line of the script, the order within a second, and whether the
rank failed by itself or only because it had lost another.
"""

from __future__ import annotations

import json
import os
import re
import sysconfig
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing.errors import ErrorHandler

from autopar.errors import AutoparError, RankLostError

__all__ = ["ErrorFile", "has_lost_a_rank", "place_of", "what_of"]

# How gloo, NCCL and the operating system say that the process at the other end is gone.
_LOSS = re.compile(r"closed by peer|reset by peer|broken pipe|remote process exited", re.IGNORECASE)
_LIBRARIES = tuple(
    {
        *(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        str(Path(torch.__file__).parent) + os.sep,
        str(Path(__file__).resolve().parents[1]) + os.sep,
    }
)


class ErrorFile(ErrorHandler):
    """Writes ``$TORCHELASTIC_ERROR_FILE``; without that variable nothing."""

    def record_exception(self, e: BaseException) -> None:
        """In torch's format, with an entry ``"autopar"`` of our own; see ``autopar.scripts.closing``."""
        path = os.environ.get("TORCHELASTIC_ERROR_FILE")
        if not path:
            return
        now = time.time()
        own = {
            "what": what_of(e),
            "place": place_of(e),
            "time": now,
            "lost": has_lost_a_rank(e),
            "heartbeats": next((one.heartbeats for one in _chain(e) if isinstance(one, RankLostError)), ""),
        }
        trace = "".join(traceback.format_exception(type(e), e, e.__traceback__))
        document = {
            "message": {
                "message": f"{type(e).__name__}: {e}",
                "extraInfo": {"py_callstack": trace, "timestamp": str(int(now))},
                "autopar": own,
            }
        }
        Path(path).write_text(json.dumps(document), encoding="utf-8")


def place_of(error: BaseException) -> str:
    """File name and line of the user's innermost frame, such as ``"train.py:14"``; ``""`` where there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{os.path.basename(error.filename)}:{error.lineno}"
    lines = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    users = [(file, line) for file, line in lines if not file.startswith(("<", *_LIBRARIES))]
    if not users:
        return ""
    file, line = users[-1]
    return f"{os.path.basename(file)}:{line}"


def has_lost_a_rank(error: BaseException) -> bool:
    """Whether an exception only says that another rank is gone, which has the real one."""
    return any(
        isinstance(one, RankLostError) or (isinstance(one, RuntimeError) and _LOSS.search(str(one)))
        for one in _chain(error)
    )


def what_of(error: BaseException) -> str:
    """What an exception says; where another rank is gone, without the transport's own words."""
    if not has_lost_a_rank(error):
        return f"{type(error).__name__}: {error}"
    if isinstance(error, AutoparError):
        return error.what.partition(": ")[0] if _LOSS.search(error.what) else error.what.rstrip(".")
    return f"Rank {os.environ.get('RANK', '0')} lost the connection to another rank"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
