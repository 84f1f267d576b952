"""Starts the processes of the parallel side and talks to them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing import connection, get_context
from typing import Any

from autopar.errors import AutoparError, CheckFailedError, RankLostError, RankMismatchError, UsageError
from autopar.runtime.loopback import LoopbackStore
from autopar.verification.messages import as_error, receive, send
from autopar.verification.rank import Job, main
from autopar.verification.settings import Settings
from autopar.verification.sources import Source

__all__ = ["Processes", "started"]

_ENDING = 10.0  # seconds that the processes have to end by themselves


class Processes:
    """The parallel side, as seen from here.

    Args:
        pipes: one for each process, in rank order.
        processes: the same.
    """

    def __init__(self, pipes: Sequence[connection.Connection], processes: Sequence[Any]) -> None:
        self._pipes, self._processes = pipes, processes

    def __len__(self) -> int:
        return len(self._pipes)

    def tell(self, rank: int, kind: str, **content: Any) -> None:
        """Sends one process a message; one that has ended says why when it is heard."""
        with suppress(BrokenPipeError, ConnectionResetError):
            send(self._pipes[rank], kind, **content)

    def hear(self) -> list[dict[str, Any]]:
        """The next message of every process, in rank order.

        Raises:
            AutoparError: what a process raised: the first that is not about the others.
            CheckFailedError: a process died, or raised something that is not autopar's.
        """
        messages: list[dict[str, Any]] = []
        failures: list[AutoparError] = []
        for rank, pipe in enumerate(self._pipes):
            where = f"Rank {rank}" if len(self) > 1 else "The parallel side"
            try:
                message = receive(pipe)
            except (EOFError, ConnectionResetError):
                self._processes[rank].join(_ENDING)
                failures.append(_death(where, self._processes[rank].exitcode))
                continue
            messages.append(message)
            if message["kind"] == "failed":
                failures.append(as_error(message, where))
        if failures:
            # A rank that raises makes the others raise, too: theirs is not the cause.
            raise next((f for f in failures if not isinstance(f, (RankLostError, RankMismatchError))), failures[0])
        return messages


@contextmanager
def started(source: Source, settings: Settings, *, ranks: int | None) -> Iterator[Processes]:
    """Starts the processes; when the block ends they are ended, and waited for.

    Args:
        source: of the model.
        settings: of the training.
        ranks: how many; None is one process without a launcher.

    Raises:
        UsageError: the model cannot be handed to other processes.
    """
    context = get_context("forkserver")  # torch is imported once, and nothing of this process's threads is copied
    context.set_forkserver_preload(["autopar.verification.preload"])
    store = None
    if ranks is not None:
        limit = timedelta(seconds=settings.timeout)
        store = LoopbackStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=limit)
    pipes: list[connection.Connection] = []
    processes: list[Any] = []
    try:
        for rank in range(ranks or 1):
            environment = _environment(rank, ranks, 0 if store is None else store.port)
            ours, theirs = context.Pipe()
            job = Job(source=source, settings=settings, environment=environment)
            process = context.Process(target=main, args=(theirs, job), name=f"autopar-verify-{rank}", daemon=True)
            try:
                process.start()
            except Exception as error:  # pickle raises whatever it likes
                raise UsageError(
                    f"The model cannot be handed to other processes: {type(error).__name__}: {error}.",
                    why="Every rank needs its own copy.",
                    mend="Give a function at the top level of a module that builds the model.",
                ) from error
            finally:
                theirs.close()
            pipes.append(ours)
            processes.append(process)
        yield Processes(pipes, processes)
    except BaseException as error:
        for process in processes if not isinstance(error, Exception) else ():  # the user wants it to end now
            process.kill()
        raise
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join(_ENDING)
            process.kill()
            process.join()
            process.close()


def _environment(rank: int, ranks: int | None, port: int) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _RANK_VARIABLES}
    kept |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    if ranks is None:
        return kept
    values = (rank, rank, ranks, ranks, "127.0.0.1", port, "True", 0)
    return kept | {name: str(value) for name, value in zip(_RANK_VARIABLES, values, strict=True)}


# As torchrun sets them; the store is held here, as it is by torchrun's agent.
_RANK_VARIABLES = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
    "TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_RESTART_COUNT",
)  # fmt: skip


def _death(where: str, exit_code: int | None) -> CheckFailedError:
    return CheckFailedError(
        f"{where} died with exit code {exit_code}.",
        why="What it printed stands above.",
        mend="In a script, call autopar.verify under `if __name__ == '__main__':`.",
    )
