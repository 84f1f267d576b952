"""Bits are bits, bounds are bounds, and a difference says where it is."""

from __future__ import annotations

import math

import pytest
import torch

from autopar.verification.comparison import Difference, Tally, unequal


def taken(got: torch.Tensor | None, expected: torch.Tensor | None, slack: object = None) -> Difference | None:
    """What a tally says of two tensors."""
    tally = Tally("gradients", "its parts", "equal bits")
    found = tally.take("fc.weight", got, expected, step=3, rank=1, slack=slack)  # type: ignore[arg-type]
    assert tally.ok == (found is None)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64, torch.int64])
def test_one_unit_in_the_last_place(dtype: torch.dtype) -> None:
    """It is seen in every dtype."""
    one = torch.ones(4).to(dtype)
    other = one.clone()
    assert taken(one, other) is None
    other[2] += 1 if dtype == torch.int64 else torch.finfo(dtype).eps
    found = taken(one, other)
    assert found is not None
    assert (found.index, found.differing, found.values) == ((2,), 1, 4)


def test_signs_of_zero_and_no_numbers() -> None:
    """A zero has a sign, and what is no number equals what is none."""
    nan = torch.tensor([1.0, math.nan])
    assert taken(nan, nan.clone()) is None
    assert taken(nan, torch.tensor([1.0, 2.0])) is not None
    found = taken(torch.tensor([1.0, 0.0]), torch.tensor([1.0, -0.0]))
    assert found is not None
    assert (found.index, found.largest) == ((1,), 0.0)


@pytest.mark.parametrize(
    ("other", "said"),
    [(None, "nothing is right"), (torch.ones(3), "float32[3] is right"), (torch.ones(2).half(), "float16[2] is right")],
)
def test_another_kind_of_tensor(other: torch.Tensor | None, said: str) -> None:
    """No number says how far apart they are."""
    found = taken(torch.ones(2), other)
    assert found is not None
    assert said in str(found)
    assert taken(None, None) is None


def test_bounds_hold_element_by_element() -> None:
    """The one that is furthest off for what it may be is named, not the largest difference."""
    got, expected = torch.tensor([1.0, 10.0]), torch.tensor([1.1, 10.5])
    assert taken(got, expected, torch.tensor([0.2, 1.0])) is None
    found = taken(got, expected, torch.tensor([0.01, 1.0]))
    assert found is not None
    assert (found.index, found.differing) == ((0,), 1)
    assert taken(got, expected, 1.0) is None
    assert taken(got, expected, 0.2) is not None


def test_the_words() -> None:
    """Step, rank, tensor, element, both values, how many, and the operation."""
    text = str(
        Difference(
            step=3, rank=1, kind="gradients", name="fc.weight", against="its parts", largest=0.5, index=(0, 2),
            got="1.5", expected="1", differing=2, values=6, operation="'relu' (model.py:8)",
        )
    )  # fmt: skip
    assert text == (
        "Step 3, rank 1: the gradient of 'fc.weight' differs from its parts: [0, 2] is 1.5 where 1 is right, "
        "and 2 of 6 values differ by up to 0.5. The first operation that differs is 'relu' (model.py:8)."
    )


def test_unequal_is_element_by_element() -> None:
    """For complex numbers, too."""
    one = torch.tensor([1 + 1j, 2 + 2j])
    assert unequal(one, torch.tensor([1 + 1j, 2 + 3j])).tolist() == [False, True]
