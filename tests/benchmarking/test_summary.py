"""Medians, quartiles and ratios of step times."""

from __future__ import annotations

import dataclasses

import pytest

from autopar.benchmarking.columns import select_columns
from autopar.benchmarking.ranks import Measured
from autopar.benchmarking.summary import Spread, geometric_mean, round_ratios, spread, summarise
from tests.benchmarking.measured import COLUMNS, MEASURED, SUMMARY


def test_spread_interpolates() -> None:
    """Quartiles of four values lie between them."""
    assert spread([1.0, 2.0, 3.0, 4.0]) == Spread(median=2.5, low=1.75, high=3.25)


def test_spread_of_one_value() -> None:
    """One value is its own median and quartiles."""
    assert spread([2.0]) == Spread(2.0, 2.0, 2.0)


def test_ratio_is_taken_within_a_round() -> None:
    """A round in which everything is ten times slower has the same ratio."""
    assert round_ratios([[1.0], [10.0]], [[2.0], [20.0]]) == [0.5, 0.5]


def test_rounds_must_match() -> None:
    """Samples with different numbers of rounds are not compared."""
    with pytest.raises(ValueError):
        round_ratios([[1.0]], [[1.0], [2.0]])


def test_best_reference_is_the_fastest() -> None:
    """Ratios are to the torch column with the smallest median, not to the first."""
    assert SUMMARY.best == ("ddp-static",)
    assert SUMMARY.step_ms["ddp"].median == pytest.approx(6.0)
    assert SUMMARY.to_best["autopar"].median == pytest.approx((1.0 + 0.8) / 2)
    assert SUMMARY.to_plain["autopar"].median == pytest.approx(2.0)
    assert SUMMARY.exposed_ms["autopar"].median == pytest.approx(1.5)


def test_what_ran_alone_is_compared_with_the_plain_module_alone() -> None:
    """Not with one that shares the machine, and not with torch's DDP."""
    assert SUMMARY.to_plain["data-parallel"].median == pytest.approx(0.5)
    assert "data-parallel" not in SUMMARY.to_best


def test_what_was_not_measured_is_in_no_figure() -> None:
    """A skipped column keeps its reason; without a plain or a torch column there is no ratio to it."""
    assert SUMMARY.skipped == {"autopar-gloo": "RuntimeError: no gloo"}
    assert SUMMARY.peak_mib == {"plain": 100.0}
    lone = summarise("a", Measured(steps={"autopar": [[1.0]]}), COLUMNS)
    assert (lone.best, lone.to_best, lone.to_plain) == ((), {}, {})
    assert geometric_mean([lone], "autopar") is None


def test_geometric_mean_over_models() -> None:
    """Half and double cancel out."""
    slow = dataclasses.replace(MEASURED, steps={"ddp": [[1.0]], "autopar": [[2.0]]})
    fast = dataclasses.replace(MEASURED, steps={"ddp": [[2.0]], "autopar": [[1.0]]})
    both = [summarise(name, one, COLUMNS) for name, one in (("a", slow), ("b", fast))]
    assert geometric_mean(both, "autopar") == pytest.approx(1.0)


def test_compiled_columns_are_compared_with_compiled_ones() -> None:
    """Each kind has its own plain module and its own best of torch's columns."""
    columns = select_columns("ddp,autopar,compiled-ddp,ddp-of-compiled,compiled-autopar")
    seconds = {"plain": 2.0, "ddp": 4.0, "autopar": 3.0, "compiled-plain": 1.0, "compiled-ddp": 3.0}
    seconds |= {"ddp-of-compiled": 2.0, "compiled-autopar": 1.5}
    steps = {name: [[value]] for name, value in seconds.items()}
    summary = summarise("a", Measured(steps=steps, graphs={"compiled-ddp": 4, "compiled-autopar": 1}), columns)
    assert [column.name for column in columns] == list(seconds)
    assert summary.best == ("ddp", "ddp-of-compiled")
    assert {name: one.median for name, one in summary.to_best.items()} == {"autopar": 0.75, "compiled-autopar": 0.75}
    assert summary.to_plain["compiled-autopar"].median == 1.5
    assert summary.graphs == {"compiled-ddp": 4, "compiled-autopar": 1}
