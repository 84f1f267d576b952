"""The command line as a whole: quick help, one-line errors, exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import pytest

from autopar.cli import main as module
from autopar.cli.click_version import set_click_version
from autopar.cli.lazy import LazyCommand
from autopar.cli.main import cli
from autopar.errors import CheckFailedError
from autopar.view.graph_json import write_document
from tests.cli.conftest import Command
from tests.view.documents import chain


def test_help_is_quick_and_needs_no_torch() -> None:
    """The promise is 0.3 s on an idle machine; torch alone takes over one, reading metadata a quarter of it.

    Time of the processor is measured, since others may use it too.
    """
    code = (
        "import sys, time; from autopar.cli.main import main; code = main(['--help']); "
        "print(*sorted({'torch', 'email', 'importlib.metadata'} & sys.modules.keys())); print(time.process_time()); "
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "transform" in done.stdout
    *_, imported, seconds = done.stdout.splitlines()
    assert imported == ""
    assert float(seconds) < 0.6


def test_click_is_told_its_own_version() -> None:
    """The one that is installed."""
    set_click_version()
    assert vars(click)["__version__"] == version("click")


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_summaries_are_those_of_the_commands(name: str) -> None:
    """What help lists is kept beside the name, so that listing imports no command."""
    listed = cli.commands[name]
    assert isinstance(listed, LazyCommand)
    command = listed.load()
    assert command.name == name
    assert str(command.help).partition("\n\n")[0].replace("\n", " ") == listed.help


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_help_of_each_command_fits_a_screen(name: str, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 60 lines on 80 columns, and no line wider than 60 columns on such a terminal."""
    monkeypatch.setenv("COLUMNS", "80")
    ended = command(name, "--help")
    assert ended.code == 0
    assert len(ended.out.splitlines()) <= 60
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, command(name, "--help").out.splitlines())) <= 60


def test_no_command_shows_help(command: Command) -> None:
    """Bare ``autopar`` says what there is."""
    ended = command()
    assert ended.code == 0
    assert "doctor" in ended.out


def test_version(command: Command) -> None:
    """Name and version, nothing else."""
    assert command("--version").out.split()[0] == "autopar"


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["transfrm"], "transfrm"),
        (["passes", "--jsn"], "--jsn"),
        (["transform"], "FILE[:NAME]"),
        (["view", "x.py", "--format", "jpeg"], "jpeg"),
        (["view", "x.py", "--format", "htm"], "Did you mean 'html'?"),
        (["run", "--device", "cdua", "x.py"], "Did you mean 'cuda'?"),
        (["transform", "x.py", "--world-size", "many"], "many"),
    ],
)
def test_usage_errors(command: Command, arguments: list[str], fact: str) -> None:
    """One line that names what is off and where help is; exit code 2."""
    ended = command(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1
    assert ended.err.startswith("autopar: error[AP40")
    assert fact in ended.err
    assert "--help`." in ended.err


def _raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def diagnose(*args: Any) -> None:
        raise error

    monkeypatch.setattr("autopar.cli.doctor.diagnose", diagnose)


def test_errors_end_with_their_exit_code(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of autopar's is one line, however it was written."""
    _raising(monkeypatch, CheckFailedError("The weights\ndiffer.", mend="Look at them."))
    ended = command("doctor")
    assert (ended.code, ended.err) == (1, "autopar: error[AP404]: The weights differ. Look at them.\n")


def test_debug_shows_the_traceback(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --debug the traceback comes first, the line stays."""
    _raising(monkeypatch, CheckFailedError("They differ."))
    ended = command("doctor", "--debug")
    assert "Traceback" in ended.err
    assert ended.err.endswith("autopar: error[AP404]: They differ.\n")


def test_defects_are_named_as_such(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw has a line of its own and no traceback."""
    _raising(monkeypatch, KeyError("lost"))
    ended = command("doctor")
    assert ended.code == 1
    assert "Unexpected KeyError: 'lost'." in ended.err
    assert "--debug" in ended.err
    assert "Traceback" not in ended.err


def test_interrupt(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends with 130 and without a traceback."""
    _raising(monkeypatch, KeyboardInterrupt())
    ended = command("doctor")
    assert ended.code == 130
    assert "Traceback" not in ended.err


def test_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """``autopar view graph.json --format json | head -1`` says nothing about it."""
    document = chain([f"blocks.{index}" for index in range(500)])  # more than a pipe holds
    (tmp_path / "graph.json").write_text(write_document(document))
    script = f"{sys.executable} -m autopar view {tmp_path} --format json | head -1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_progress(command: Command, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a terminal, in a pipe with -v, and never with -q or with its variable."""
    asked = ("bench", str(model_file), "--columns", "none")
    terminal = "Loading PyTorch\n"
    assert terminal not in command(*asked).err
    assert command(*asked, "-v").err.startswith(terminal)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert terminal in command(*asked).err.replace("\x1b[2m", "").replace("\x1b[0m", "")
    assert "Loading" not in command(*asked, "-q").err
    monkeypatch.setenv("AUTOPAR_QUIET", "1")
    assert "Loading" not in command(*asked).err


def test_colour_only_on_a_terminal(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipe there is no escape sequence, with and without NO_COLOR."""
    assert "\x1b" not in command("--help").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in command("transfrm").err


def test_console_script_is_this_main() -> None:
    """What pip installs as ``autopar`` is the function tested here."""
    from importlib.metadata import entry_points

    (script,) = [one for one in entry_points(group="console_scripts") if one.name == "autopar"]
    assert script.load() is module.main


def test_sigterm_is_said_and_clears_up(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As Ctrl-C is: what a command began is ended on the way out; afterwards the signal is what it was."""
    cleared = []

    def stopped(*arguments: Any, **options: Any) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10.0)
        finally:
            cleared.append("processes")
        return 0

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(module.cli, "main", stopped)
    assert module.main(["verify"]) == 143
    assert "Stopped by SIGTERM." in capsys.readouterr().err
    assert cleared == ["processes"]
    assert signal.getsignal(signal.SIGTERM) is before
