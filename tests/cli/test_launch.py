"""``autopar run``: which words are its own, which are torchrun's, and which are the script's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command

Calls = list[dict[str, Any]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What the command asked to be run, instead of running it; the script's exit code is 5."""
    made: Calls = []

    def run_script(script: str, script_args: list[str], **options: Any) -> int:
        made.append({"script": script, "args": list(script_args), **options})
        return 5

    monkeypatch.setattr("autopar.scripts.run.run_script", run_script)
    return made


@pytest.mark.parametrize(
    ("words", "launcher", "script", "arguments"),
    [
        (["s.py"], [], "s.py", []),
        (["s.py", "--nproc", "4", "-x"], [], "s.py", ["--nproc", "4", "-x"]),
        (["--max-restarts", "3", "s.py", "a"], ["--max-restarts", "3"], "s.py", ["a"]),
        (["--nnodes=2", "--standalone", "s.py"], ["--nnodes=2", "--standalone"], "s.py", []),
        (["-r3", "-t", "1", "s.py", "--json"], ["-r3", "-t", "1"], "s.py", ["--json"]),
    ],
)
def test_words_go_where_they_belong(
    command: Command, calls: Calls, words: list[str], launcher: list[str], script: str, arguments: list[str]
) -> None:
    """torchrun's options stand before the script, everything behind it is the script's."""
    assert command("run", *words).code == 5
    (call,) = calls
    assert (call["torchrun_args"], call["script"], call["args"]) == (launcher, script, arguments)
    assert (call["nproc"], call["device"], call["replace"]) == (None, None, True)


def test_own_options(command: Command, calls: Calls) -> None:
    """Number of processes, device, no replacement, and a folder for measured steps."""
    command("run", "--nproc", "2", "--device", "cpu", "--no-replace", "--trace", "measured", "s.py")
    command("run", "--debug", "s.py")
    assert (calls[0]["nproc"], calls[0]["device"], calls[0]["replace"]) == (2, "cpu", False)
    assert [call["debug"] for call in calls] == [False, True]
    assert [call["trace"] for call in calls] == [Path("measured"), None]


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        ([], "no script"),
        (["--nproc", "2"], "no script"),
        (["--max-restarts", "3", "--nproc", "2", "s.py"], "own options first"),
        (["--device", "tpu", "s.py"], "tpu"),
    ],
)
def test_bad_usage(command: Command, calls: Calls, words: list[str], fact: str) -> None:
    """Nothing is run, and the line says what to write."""
    ended = command("run", *words)
    assert (ended.code, calls) == (2, [])
    assert fact in ended.err


def test_missing_script(command: Command) -> None:
    """The real thing refuses a script that is not there."""
    ended = command("run", "nowhere.py")
    assert ended.code == 2
    assert "nowhere.py does not exist" in ended.err
