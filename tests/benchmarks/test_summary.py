"""Medians, quartiles and ratios of step times."""

import pytest

from benchmarks.summary import Spread, geometric_mean, round_ratios, spread, summarise

SAMPLES = {
    "plain": [[0.001, 0.001], [0.002, 0.002]],
    "ddp": [[0.004, 0.004], [0.008, 0.008]],
    "ddp-static": [[0.002, 0.002], [0.005, 0.005]],
    "autopar": [[0.001, 0.003], [0.004, 0.004]],
}


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
    """Ratios are to the reference with the smallest median, not to the first."""
    summary = summarise("deep", SAMPLES, subject="autopar", plain="plain", references=["ddp", "ddp-static"])
    assert summary.best == "ddp-static"
    assert summary.step_ms["ddp"].median == pytest.approx(6.0)
    assert summary.to_best.median == pytest.approx((1.0 + 0.8) / 2)
    assert summary.to_plain.median == pytest.approx(2.0)


def test_geometric_mean_over_workloads() -> None:
    """Half and double cancel out."""
    slow = summarise("a", {"x": [[2.0]], "y": [[1.0]]}, subject="x", plain="y", references=["y"])
    fast = summarise("b", {"x": [[1.0]], "y": [[2.0]]}, subject="x", plain="y", references=["y"])
    assert geometric_mean([slow, fast]) == pytest.approx(1.0)
