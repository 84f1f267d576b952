"""From a name or an object to a strategy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from torch import nn

from autopar.errors import OptionError, UnknownNameError, UsageError
from autopar.passes.pipeline import parse
from autopar.runtime.executor import Executor
from autopar.strategies import DDP, DataParallel, Strategy, register_strategy, resolve, strategies


@dataclass(frozen=True)
class _Mine:
    knob: int = 1
    name: ClassVar[str] = "mine"

    def pipeline(self) -> str:
        return "inline-modules"

    def options(self) -> Mapping[str, Any]:
        return {"knob": self.knob}

    def start(self, model: nn.Module) -> Executor:
        raise NotImplementedError


@pytest.fixture
def mine() -> Iterator[type[_Mine]]:
    """A strategy of somebody else's, registered for one test."""
    yield register_strategy(_Mine)  # type: ignore[misc]
    strategies.remove("mine")


@pytest.mark.parametrize(("name", "cls"), [("ddp", DDP), ("data_parallel", DataParallel)])
def test_names_of_the_package(name: str, cls: type[Strategy]) -> None:
    """Both strategies are found by name, and keep the contract."""
    strategy = resolve(name, {})
    assert type(strategy) is cls
    assert isinstance(strategy, Strategy)
    assert parse(strategy.pipeline())


def test_options_make_the_object() -> None:
    """Options become fields."""
    assert resolve("ddp", {"bucket_cap_mb": 2, "timeout": 9}) == DDP(bucket_cap_mb=2, timeout=9)


def test_object_comes_through() -> None:
    """An object is taken as it is."""
    strategy = DDP(timeout=3)
    assert resolve(strategy, {}) is strategy


def test_object_with_options_is_refused() -> None:
    """The options belong into the object."""
    with pytest.raises(OptionError, match=r"Options timeout were given beside .* Give them to DDP\(\.\.\.\) instead"):
        resolve(DDP(), {"timeout": 3})


def test_unknown_name_lists_the_known_ones() -> None:
    """With the nearest first."""
    with pytest.raises(UnknownNameError, match=r"'data-parallel'\. Did you mean 'data_parallel'\? Known: .*ddp"):
        resolve("data-parallel", {})


def test_unknown_option_lists_the_known_ones() -> None:
    """Without a near one there is no suggestion."""
    with pytest.raises(OptionError, match=r"has no option 'xyz'\. Its options: bucket_cap_mb, "):
        resolve("ddp", {"xyz": 1})


@pytest.mark.parametrize("wrong", [None, 1, DDP, object()])
def test_what_is_no_strategy_is_refused(wrong: Any) -> None:
    """A class, too, is no strategy object."""
    with pytest.raises(UsageError, match=r"neither a name nor a strategy object.*'auto', 'data_parallel', 'ddp'"):
        resolve(wrong, {})


def test_registered_strategy_is_found(mine: type[_Mine]) -> None:
    """A strategy of another package is used by name, with its options."""
    assert resolve("mine", {"knob": 4}) == mine(knob=4)


def test_registering_an_incomplete_class_is_refused() -> None:
    """What is missing is named."""
    with pytest.raises(UsageError, match="Half cannot be registered as a strategy: it has no pipeline, options, start"):
        register_strategy(type("Half", (), {"name": "half"}))


def test_taken_name_is_refused() -> None:
    """Two strategies of one name would hide each other."""
    with pytest.raises(UsageError, match="already a strategy named 'ddp'"):
        register_strategy(type("Other", (_Mine,), {"name": "ddp"}))


def test_pipeline_carries_the_bucket_sizes() -> None:
    """The printed pipeline says what was asked for."""
    assert "bucket{cap_mb=2.5,first_mb=0.5}" in DDP(bucket_cap_mb=2.5, first_bucket_mb=0.5).pipeline()


def test_process_group_and_timeout_are_no_part_of_the_plan() -> None:
    """What may differ from run to run is not compared between ranks or written to plans."""
    assert set(DDP().options()) == {"bucket_cap_mb", "first_bucket_mb", "broadcast_buffers", "backend"}
