"""The console script: the group of commands, and how every error ends."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import rich_click as click

from autopar.cli.click_version import set_click_version
from autopar.cli.lazy import LazyCommand
from autopar.cli.terminal import say_error
from autopar.errors import AutoparError, UsageError

__all__ = ["cli", "main"]

_COMMANDS = (
    LazyCommand(
        "transform", "autopar.cli.transform", "Write the data-parallel form of a model: Python, plan and pictures."
    ),
    LazyCommand(
        "run", "autopar.cli.launch", "Run a script, its DataParallel or DistributedDataParallel replaced by autopar's."
    ),
    LazyCommand(
        "verify",
        "autopar.cli.verify",
        "Train a model plainly and in parallel, and compare after every step; exit code 1 where they differ.",
    ),
    LazyCommand(
        "bench",
        "autopar.cli.bench",
        "Measure training steps of a model: plain, with torch's DistributedDataParallel, and with autopar.",
    ),
    LazyCommand("view", "autopar.cli.view", "Show a program: of a model file, or of what transform wrote."),
    LazyCommand(
        "explain",
        "autopar.cli.explain",
        "Say what of a model stays opaque: each piece with its size, the line that forced it, and a way to free it.",
    ),
    LazyCommand(
        "diff", "autopar.cli.diff", "Say what differs between two runs of transform; exit code 1 where anything does."
    ),
    LazyCommand("bisect", "autopar.cli.bisect", "Find the first pass with which a command of yours fails."),
    LazyCommand("init", "autopar.cli.init", "Begin a [tool.autopar] section in the pyproject.toml of this folder."),
    LazyCommand("passes", "autopar.cli.passes", "List passes and pipelines, or say all about one pass."),
    LazyCommand(
        "doctor",
        "autopar.cli.doctor",
        'Report torch, backends, devices, launch environment, and what "auto" would pick.',
    ),
)
_DEFECT = "AP901"
_INTERRUPTED, _BROKEN_PIPE, _TERMINATED = 130, 141, 143  # 128 and the signal's number, as shells say it


class _Terminated(BaseException):
    """SIGTERM came; what is to be cleaned up on the way out is."""


def _version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"autopar {version('autopar')}")
        ctx.exit()


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    epilog="Exit codes: 0 ok, 1 a check failed, 2 usage, 3 the model cannot be transformed, 4 environment.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Turn a PyTorch model into a data-parallel one, and see what was done."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for _command in _COMMANDS:
    cli.add_command(_command)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code; no error leaves it as an exception.

    Args:
        argv: the arguments; None takes those of the process.
    """
    settings: dict[str, bool] = {"debug": False}
    set_click_version()
    try:
        with _raising_on_sigterm():
            code = cli.main(argv, prog_name="autopar", obj=settings, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        # What is still buffered would raise again when the interpreter flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except click.Abort:
        say_error("Interrupted.")
        return _INTERRUPTED
    except _Terminated:
        say_error("Stopped by SIGTERM.")
        return _TERMINATED
    except click.ClickException as error:
        say_error(_sentence(error), UsageError.code)
        return error.exit_code
    except AutoparError as error:
        _trace(settings)
        say_error(str(error), error.code)
        return error.exit_code
    except Exception as error:
        _trace(settings)
        what = f"{type(error).__name__}: {error}".rstrip(". ")
        say_error(f"Unexpected {what}. This is a defect of autopar's: run with --debug for the traceback.", _DEFECT)
        return 1


@contextmanager
def _raising_on_sigterm() -> Iterator[None]:
    """As Ctrl-C does, so that commands end the processes and remove the files that they made."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():  # which alone may have handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _trace(settings: dict[str, bool]) -> None:
    if settings["debug"]:
        traceback.print_exc()


def _sentence(error: click.ClickException) -> str:
    text = error.format_message().rstrip()
    text = text if text.endswith((".", "?", "!")) else f"{text}."
    context = getattr(error, "ctx", None)
    return f"{text} See `{context.command_path} --help`." if context is not None else text
