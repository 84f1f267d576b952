"""The launcher of ``autopar run``: torchrun, with a closing sentence in the place of its traceback.

    python -m autopar.scripts.entry launcher [--debug] SCRIPT TORCHRUN_ARGUMENTS...

Rendezvous, restarts, several hosts and log folders are torchrun's own, whose ``run`` is called here.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from argparse import Namespace
from typing import NoReturn

from torch.distributed import DistError
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing import ProcessFailure, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, record
from torch.distributed.elastic.rendezvous import RendezvousError, c10d_rendezvous_backend, dynamic_rendezvous

from autopar import compat
from autopar.runtime.loopback import LoopbackStore
from autopar.scripts.closing import Failure, closing, signal_name

__all__ = ["main"]

# What torchrun logs while it ends the ranks; the closing sentence says it. By the text's beginning, so
# that a text that changes is shown rather than anything else hidden.
_SAID = {
    "torch.distributed.elastic.multiprocessing.api": ("Sending process", "failed (exitcode"),
    "torch.distributed.elastic.multiprocessing.errors.error_handler": ("no error file defined for parent",),
    "torch.distributed.elastic.agent.server.api": ("Received %s death signal",),
}


def main(arguments: list[str]) -> NoReturn:
    """Runs torchrun on its arguments and exits: 0, 1 where a rank failed, 128 + n after signal n."""
    debug = arguments[0] == "--debug"
    script, *rest = arguments[1:] if debug else arguments
    sys.argv[0] = "torchrun"  # for its usage messages
    options = torchrun.parse_args(rest)
    if options.standalone and not options.local_addr:
        _stay_on_loopback(options)
    compat.make_store_each_round(dynamic_rendezvous)
    if not debug and not options.max_restarts:  # between restarts nobody else says what happened
        _quieten()
    try:
        record(torchrun.run)(options)
    except ChildFailedError as error:
        _end(_closing(script, options, error), code=1, debug=debug)
    except SignalException as error:
        if error.sigval == signal.SIGINT:  # the command line itself says so
            sys.exit(128 + signal.SIGINT)
        _end(f"{script} was stopped by {signal_name(error.sigval)}.", code=128 + error.sigval, debug=debug)
    except (RendezvousError, DistError) as error:
        what = " ".join(str(error).split()).rstrip(".")
        _end(f"The ranks of {script} could not meet: {type(error).__name__}: {what}.", code=1, debug=debug)
    sys.exit(0)


def _stay_on_loopback(options: Namespace) -> None:
    """Lets everything that this launcher and its ranks listen on be out of reach for other machines."""
    options.local_addr = "127.0.0.1"
    compat.set_launcher_store(LoopbackStore, c10d_rendezvous_backend)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # gloo listens where the host's name points, otherwise


def _end(sentence: str, *, code: int, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc()
    print(f"autopar: error: {sentence}", file=sys.stderr, flush=True)
    sys.exit(code)


def _closing(script: str, options: Namespace, error: ChildFailedError) -> str:
    failures = error.failures
    first = next(iter(failures))
    offset = first - failures[first].local_rank
    local = range(offset, offset + torchrun.determine_local_world_size(options.nproc_per_node))
    _, hosts = torchrun.parse_min_max_nnodes(options.nnodes)
    found = [_failure(rank, failure) for rank, failure in failures.items()]
    return closing(script, found, ranks=local, several_hosts=hosts > 1)


def _failure(rank: int, failure: ProcessFailure) -> Failure:
    """From torch's record, and from what ``autopar.scripts.error_file`` wrote where the rank raised."""
    message = failure.error_file_data.get("message")
    if not isinstance(message, dict):
        return Failure(rank=rank, exit_code=failure.exitcode, time=failure.timestamp)
    own = message.get("autopar", {})
    return Failure(
        rank=rank,
        exit_code=failure.exitcode,
        time=own.get("time", failure.timestamp),
        error=own.get("what", message["message"]),
        place=own.get("place", ""),
        lost=own.get("lost", False),
        heartbeats=own.get("heartbeats", ""),
    )


def _quieten() -> None:
    for name, beginnings in _SAID.items():
        logging.getLogger(name).addFilter(
            lambda entry, beginnings=beginnings: not str(entry.msg).startswith(beginnings)  # type: ignore[misc]
        )
