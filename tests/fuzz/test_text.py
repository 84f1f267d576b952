"""Pipeline strings and command lines: an answer or a sentence, never a traceback."""

from __future__ import annotations

import contextlib
import io
import os
import textwrap
import warnings
from pathlib import Path

import pytest
import rich_click as click
from hypothesis import given
from hypothesis import strategies as st

from autopar.cli.lazy import LazyCommand
from autopar.cli.main import cli, main
from autopar.errors import PipelineError, UsageError
from autopar.passes.pipeline import build, check_contract, parse, render
from autopar.view.graph_json import write_document
from tests.fuzz.limits import fuzzed, in_time
from tests.partitioner.test_plan import PLAN
from tests.view.documents import chain

_PIECES = (
    "shapes", "bucket", "ddp-sync", "inline-modules", "{", "}", "=", ",", "cap_mb", "25", "-1", "1e999",
    '"a', " ", "\\",
)  # fmt: skip
_COMMANDS = ("transform", "view", "explain", "passes", "diff", "doctor")  # those that start no processes
_FILES = (
    "model.py", "model.py:Net", "model.py:gone", "graph.json", "plan.json", "nowhere.py", "folder", "broken.py",
    "empty.py", "broken.json", "list.json", "binary.json", "broken.json:model", ":", "", "AP101", "bucket",
)  # fmt: skip
_VALUES = (
    "0", "1", "-1", "2x4", "x=2x4", "3x", "nan", "1e999", "a=b", "=", "link=5", "link=nan", "ddp", "auto", "svg",
    "json", "shapes,", "shapes,bucket", "{", "(", "*", "\u0000", "\u00e9\n", "folder", "plan.json", "out",
)  # fmt: skip


def _options(command: str) -> list[str]:
    entry = cli.commands[command]
    assert isinstance(entry, LazyCommand)
    known = entry.load()
    return [text for one in known.params if isinstance(one, click.Option) for text in (*one.opts, *one.secondary_opts)]


_WORDS = {
    command: st.sampled_from(_FILES)
    | st.sampled_from([*_options(command), "--", "-x", "--help"])
    | st.sampled_from(_VALUES)
    for command in _COMMANDS
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a graph and a plan, and files that are none."""
    path = tmp_path_factory.mktemp("inputs")
    (path / "folder").mkdir()
    (path / "model.py").write_text(
        textwrap.dedent("""
            from torch import nn

            class Net(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.fc = nn.Linear(4, 2)

                def forward(self, x):
                    return self.fc(x)
        """)
    )
    (path / "broken.py").write_text("def (")
    (path / "empty.py").write_text("")
    (path / "broken.json").write_text("{")
    (path / "list.json").write_text("[1, {}]")
    (path / "binary.json").write_bytes(b"\xff\x00")
    (path / "graph.json").write_text(write_document(chain(["a", "b"])))
    (path / "plan.json").write_text(PLAN.to_json())
    return path


@pytest.mark.timeout(3600)
@fuzzed
@given(text=st.lists(st.sampled_from(_PIECES) | st.text(max_size=3), max_size=9).map("".join))
def test_pipelines(text: str) -> None:
    """What can be read can be written and read again; all else is a sentence."""
    with in_time():
        try:
            entries = parse(text)
            check_contract(build(entries))
        except (PipelineError, UsageError):
            return
        assert parse(render(entries)) == entries


@pytest.mark.timeout(3600)
@fuzzed
@given(
    words=st.sampled_from(_COMMANDS).flatmap(
        lambda command: st.lists(_WORDS[command], max_size=5).map(lambda words: [command, *words])
    )
)
def test_command_lines(folder: Path, words: list[str]) -> None:
    """An exit code that is documented, and no word of a defect."""
    said, before = io.StringIO(), Path.cwd()
    os.chdir(folder)
    try:
        with (
            in_time(),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            warnings.simplefilter("ignore")
            code = main(words)
    finally:
        os.chdir(before)
    assert code in (0, 1, 2, 3, 4)
    assert "defect of autopar's" not in said.getvalue(), said.getvalue()
    assert "--debug" in words or "Traceback" not in said.getvalue()
