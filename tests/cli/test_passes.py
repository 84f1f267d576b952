"""``autopar passes``: every pass with its contract, options and origin; every strategy's pipeline."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from autopar.passes.base import PassContext, PassResult
from autopar.passes.pipeline import parse
from autopar.passes.registry import passes, register_pass
from autopar.program import Program
from tests.cli.conftest import Command


def test_lists_passes_and_pipelines(command: Command) -> None:
    """Names with options, and what each strategy runs."""
    out = command("passes").out
    assert "bucket{cap_mb=None, first_mb=1.0}" in out
    assert "ddp: " in out
    assert "inline-modules,shapes,backward-order," in out


def test_json(command: Command) -> None:
    """The same as data: pipelines can be read, and what they name is listed."""
    listed = command("passes", "--json").json
    known = {one["name"]: one for one in listed["passes"]}
    assert known["bucket"]["options"] == {"cap_mb": None, "first_mb": 1.0}
    assert known["bucket"]["requires"] == ["backward-order"]
    assert known["bucket"]["from"] == f"autopar {version('autopar')}"
    for strategy in listed["strategies"]:
        assert {entry.name for entry in parse(strategy["pipeline"])} <= known.keys()


def test_one_pass(command: Command) -> None:
    """All about one pass."""
    out = command("passes", "ddp-sync").out
    assert out.startswith("ddp-sync\n")
    assert "requires: buckets, inlined" in out
    assert "provides: synced" in out
    assert command("passes", "ddp-sync", "--json").json["provides"] == ["synced"]


def test_unknown_pass(command: Command) -> None:
    """The nearest name is suggested."""
    ended = command("passes", "ddp-snyc")
    assert (ended.code, ended.out) == (2, "")
    assert "Did you mean 'ddp-sync'?" in ended.err


def test_registered_pass_is_listed_with_its_module(command: Command) -> None:
    """A pass of this process is listed like any other."""

    class CountNodes:
        """Counts."""

        name = "count-nodes"
        requires: frozenset[str] = frozenset()
        provides: frozenset[str] = frozenset()

        def __init__(self, limit: int) -> None:
            self.limit = limit

        def run(self, program: Program, ctx: PassContext) -> PassResult:
            """Nothing."""
            return PassResult(program, changed=False)

    register_pass(CountNodes)
    try:
        described = command("passes", "count-nodes", "--json").json
    finally:
        passes.remove("count-nodes")
    assert described["options"] == {"limit": "required"}
    assert described["from"].endswith("test_passes")


@pytest.mark.parametrize("arguments", [[], ["bucket"]])
def test_pipe_is_plain(command: Command, arguments: list[str]) -> None:
    """No escape sequences in a pipe."""
    assert "\x1b" not in command("passes", *arguments).out
