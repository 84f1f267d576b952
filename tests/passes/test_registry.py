"""Passes are found by name, and two cannot have the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import autopar
from autopar.errors import UnknownNameError, UsageError
from autopar.passes.base import Pass, PassResult
from autopar.passes.pipeline import build, parse
from autopar.passes.registry import passes, register_pass


class Mine:
    """A pass as a user writes it."""

    name = "mine"
    requires = frozenset({"captured"})
    provides: frozenset[str] = frozenset()

    def run(self, program: Any, ctx: Any) -> PassResult:
        """Nothing."""
        return PassResult(program, changed=False)


@pytest.fixture
def mine() -> Iterator[type[Pass]]:
    """The pass, registered for one test."""
    register_pass(Mine)
    yield Mine
    passes.remove("mine")


def test_registered_pass_is_found(mine: type[Pass]) -> None:
    """By pipelines, too; its origin is where it was defined."""
    assert passes.get("mine") is mine
    assert isinstance(build(parse("mine"))[0], mine)
    assert "mine" in passes.names()
    assert passes.origin("mine") == Mine.__module__


def test_registering_again_is_harmless(mine: type[Pass]) -> None:
    """A module may be run twice in a notebook cell; the same class is no conflict."""
    assert register_pass(mine) is mine


def test_other_pass_of_that_name_is_refused(mine: type[Pass]) -> None:
    """The message says where the first one comes from."""
    other = type("Other", (Mine,), {})
    with pytest.raises(UsageError, match=r"already a pass named 'mine', from .*test_registry.*Choose another name"):
        register_pass(other)


def test_name_of_an_installed_pass_is_refused() -> None:
    """Its package is named."""
    with pytest.raises(UsageError, match=rf"already a pass named 'shapes', from autopar {autopar.__version__}"):
        register_pass(type("Shapes", (Mine,), {"name": "shapes"}))


@pytest.mark.parametrize("part", ["name", "requires", "provides", "run"])
def test_class_without_a_part_of_the_contract_is_refused(part: str) -> None:
    """The part that is missing is named."""
    parts = {key: getattr(Mine, key) for key in ("name", "requires", "provides", "run") if key != part}
    with pytest.raises(UsageError, match=f"it has no {part}"):
        register_pass(type("Partly", (), parts))


def test_removed_pass_is_unknown() -> None:
    """And removing what is not there is no error."""
    passes.remove("mine")
    with pytest.raises(UnknownNameError, match="no pass named 'mine'"):
        passes.get("mine")
