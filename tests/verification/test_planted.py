"""A bug in the parallel side is caught, with the step, the rank and the name of what differs first."""

from __future__ import annotations

import pytest
import torch

import autopar
from autopar.errors import CheckFailedError, InvalidProgramError
from autopar.verification import Report
from tests.verification.models import MLP, PIPELINE


def verified(bug: str, steps: int = 2) -> Report:
    """The report on an MLP whose pipeline has this pass in it."""
    torch.manual_seed(0)
    return autopar.verify(MLP, torch.randn(8, 6), steps=steps, pipeline=PIPELINE.format(bug=bug))


def test_a_parameter_that_is_used_past_its_bucket() -> None:
    """No bug: what arrives outside of the model's forward is averaged, too."""
    assert verified("drops-one").ok


def test_a_parameter_whose_gradient_is_lost() -> None:
    """Its gradient is missing, and only its."""
    report = verified("freezes-one")
    found = report.difference
    assert found is not None
    assert (found.step, found.kind, found.name) == (0, "gradients", "fc1.bias")
    assert (found.got, found.expected) == ("nothing", "float32[6]")
    assert not report.ok
    assert [check.kind for check in report.checks if not check.ok] == ["gradients", "parameters"]


def test_a_gradient_that_is_scaled_wrongly() -> None:
    """By a factor of two, as the two numbers show."""
    found = verified("scales-wrongly").difference
    assert found is not None
    assert (found.step, found.rank, found.kind, found.name) == (0, 0, "gradients", "fc1.weight")
    assert float(found.got) == pytest.approx(2 * float(found.expected))


def test_an_order_that_differs_on_one_rank() -> None:
    """The forward is right and no collective mismatches: only the values tell."""
    found = verified("reorders-on-rank-1").difference
    assert found is not None
    assert (found.step, found.kind, found.name) == (0, "gradients", "fc2.weight")


def test_a_forward_that_computes_something_else() -> None:
    """Outputs come first, and the operation is named at which it begins."""
    report = verified("changes-forward")
    assert report.difference is not None
    assert (report.difference.kind, report.difference.name) == ("outputs", "loss")
    assert "fc1" in report.difference.operation or "linear" in report.difference.operation
    with pytest.raises(CheckFailedError, match="The first operation that differs is"):
        report.require()


def test_what_the_rules_see_is_an_error_of_its_pass() -> None:
    """Before anything is trained: the rank, the pass, the rule and the bucket."""
    with pytest.raises(InvalidProgramError) as caught:
        verified("reorders-bucket")
    assert str(caught.value).startswith("Rank 1: After pass 'reorders-bucket' the program of MLP breaks the rule")
    assert "bucket 0" in str(caught.value)
