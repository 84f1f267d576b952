"""``autopar diff`` and ``autopar bisect``: what they print, their JSON, their exit codes, and bad input."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autopar.passes.leaving_out import LIMIT
from autopar.passes.plugin_files import PLUGINS
from autopar.passes.registry import passes
from tests.cli.conftest import Command
from tests.view.documents import chain

USUAL = ("--input", "4x2x10")
PLUGIN = """
import autopar

@autopar.register_pass
def first(gm):
    pass

@autopar.register_pass
def second(gm, where: str = "here"):
    pass
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file with two passes; forgotten afterwards."""
    monkeypatch.setenv(PLUGINS, "")
    path = tmp_path / "cli_passes.py"
    path.write_text(PLUGIN)
    yield path
    passes.remove("first")
    passes.remove("second")
    sys.modules.pop("autopar_plugin_cli_passes", None)


def test_diff_of_two_runs(command: Command, model_file: Path) -> None:
    """Equal ones end with 0; others say what differs, for people and as data, and end with 1."""
    for name, cap in (("one", "25"), ("same", "25"), ("other", "0")):
        assert command("transform", str(model_file), *USUAL, "--bucket-cap-mb", cap, "-o", name).code == 0
    equal = command("diff", "one", "same")
    assert (equal.code, equal.out) == (0, "No difference: the same plan, the same graph.\n")
    assert command("diff", "one", "one/graph.json", "--json").json["equal"]
    ended = command("diff", "one", "other")
    assert ended.code == 1
    assert "  options: " in ended.out
    assert "bucket 1, place 0" in ended.out
    assert "\x1b" not in ended.out
    found = command("diff", "one", "other", "--json")
    assert found.code == 1
    assert {row["target"] for row in found.json["after"]["added"]} == {"ops.sync_gradients"}
    assert not any(found.json["before"].values())


def test_bisect_names_the_pass(command: Command, model_file: Path, plugin: Path) -> None:
    """The command is run with limits until one pass is left; it inherits the plug-ins."""
    text = "first,inline-modules,shapes,second{where=there},backward-order,first,bucket,ddp-sync,lift-parameters"
    assert command("transform", str(model_file), *USUAL, "--plugin", str(plugin), "--passes", text).code == 0
    script = f"import os, sys; assert os.environ['{PLUGINS}']; sys.exit(int(os.environ['{LIMIT}']) >= 2)"
    ended = command("bisect", "out", "--verbose", "--", sys.executable, "-c", script)
    assert ended.code == 0, ended.err
    assert ended.out == "The first bad pass is second{where=there}, 2 of 3 that may be left out.\n"
    assert ended.err.splitlines() == [
        "bad   3 of 3 passes: up to first",
        "good  0 of 3 passes: none of those that may be left out",
        "good  1 of 3 passes: up to first",
        "bad   2 of 3 passes: up to second{where=there}",
    ]
    found = command("bisect", "out", "--json", "--", sys.executable, "-c", script).json
    assert (found["pass"], found["number"], len(found["runs"])) == ("second{where=there}", 2, 4)
    for code, fact in ((0, "nothing to find"), (1, "fails without first, second{where=there}, first, too")):
        ended = command("bisect", "out", "--", sys.executable, "-c", f"import sys; sys.exit({code})")
        assert (ended.code, ended.out) == (1, "")
        assert fact in ended.err


@pytest.mark.parametrize(
    ("arguments", "code", "fact"),
    [
        (["diff", ".", "nowhere"], 2, "graph.json cannot be read"),
        (["diff", "model.py", "model.py"], 3, "model.py is not JSON"),
        (["diff", "future.json", "future.json"], 3, "future.json has version 3"),
        (["diff", "."], 2, "RUN_B"),
        (["bisect", "."], 2, "no command to run"),
        (["bisect", ".", "--", "true"], 2, "graph.json cannot be read"),
        (["bisect", "planned.json", "--", "true"], 2, "Did you mean 'shapes'?"),
        (["bisect", "stopped.json", "--", "true"], 2, "has no plan"),
        (["bisect", ".", "--plugin", "nowhere.py", "--", "true"], 2, "nowhere.py is no Python file"),
    ],
)
def test_bad_input(command: Command, model_file: Path, arguments: list[str], code: int, fact: str) -> None:
    """One line with the fact and the exit code: no run, of another version, with passes that are not there."""
    document = chain(["a"])
    Path("future.json").write_text(json.dumps({**document, "version": 3}))
    Path("planned.json").write_text(json.dumps({**document, "plan": {**document["plan"], "pipeline": "shpaes"}}))
    Path("stopped.json").write_text(json.dumps({**document, "plan": None}))
    ended = command(*arguments)
    assert (ended.code, ended.out) == (code, "")
    assert fact in ended.err
    assert len(ended.err.splitlines()) == 1
