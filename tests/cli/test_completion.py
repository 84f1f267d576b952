"""What a shell is told when somebody presses Tab."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from autopar.cli.main import cli


@pytest.mark.parametrize(
    ("words", "begun", "expected"),
    [
        ([], "tr", {"transform"}),
        (["transform", "--bucket"], "--bu", {"--bucket-cap-mb"}),
        (["transform", "x.py", "--strategy"], "d", {"ddp", "data_parallel"}),
        (["transform", "--disable-pass"], "sha", {"shapes"}),
        (["passes"], "sha", {"shapes"}),
        (["view", "--capture"], "dyn", {"dynamo"}),
        (["view", "x.py", "--format"], "tr", {"trace"}),
        (["run", "--device"], "cu", {"cuda"}),
        (["bench", "x.py", "--columns"], "plain,ddp-s", {"plain,ddp-static"}),
    ],
)
def test_names(
    words: list[str], begun: str, expected: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands, options and what options take; whatever pyproject.toml says."""
    (tmp_path / "pyproject.toml").write_text("[tool.autopar]\nno-such-option = 1\n")
    monkeypatch.chdir(tmp_path)
    items = BashComplete(cli, {}, "autopar", "_AUTOPAR_COMPLETE").get_completions(words, begun)
    assert {item.value for item in items} == expected


@pytest.mark.parametrize("name", ["transform", "verify", "bench", "view", "explain", "diff", "bisect", "run"])
def test_files_are_left_to_the_shell(name: str) -> None:
    """Wherever a command takes one."""
    (item,) = BashComplete(cli, {}, "autopar", "_AUTOPAR_COMPLETE").get_completions([name], "mod")
    assert (item.type, item.value) == ("file", "mod")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_line_for_bash() -> None:
    """The documented line, in a real shell."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    script = 'eval "$(_AUTOPAR_COMPLETE=bash_source autopar)" && complete -p autopar'
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "_autopar_completion" in done.stdout
