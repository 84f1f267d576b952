"""Values of the wrong type are named with their place."""

from __future__ import annotations

from typing import Any

import pytest

from autopar.partitioner.plan import BucketSpec, LocalParameter, ParameterSpec
from autopar.partitioner.typed import read_typed

_BUCKET = {"index": 0, "parameters": ["a"], "nbytes": 4, "dtype": "float32", "device": "cpu"}


def test_reads_what_fits() -> None:
    """Lists become tuples, and fields that are left out take their defaults."""
    assert read_typed(BucketSpec, _BUCKET) == BucketSpec(
        index=0, parameters=("a",), nbytes=4, dtype="float32", device="cpu"
    )
    assert read_typed(tuple[LocalParameter, ...], [{"name": "a", "reason": "b"}]) == (
        LocalParameter(name="a", reason="b"),
    )


@pytest.mark.parametrize(
    ("wanted", "value", "said"),
    [
        (BucketSpec, {**_BUCKET, "nbytes": "4"}, "nbytes is '4' and not a whole number"),
        (BucketSpec, {**_BUCKET, "index": True}, "index is True and not a whole number"),
        (BucketSpec, {**_BUCKET, "route": "air"}, "route is 'air' and not one of graph, hook"),
        (BucketSpec, {**_BUCKET, "parameters": [1]}, r"parameters\[0\] is 1 and not text"),
        (BucketSpec, {**_BUCKET, "wire_nbytes": []}, r"wire_nbytes is \[\] and not a whole number"),
        (BucketSpec, {**_BUCKET, "more": 1}, "more is not known"),
        (tuple[ParameterSpec, ...], [3], r"\[0\] is 3 and not an object"),
        (float, float("nan"), "the whole is nan and not a number"),
        pytest.param(float, 10**400, "and not a number", id="huge"),
    ],
)
def test_names_what_does_not_fit(wanted: Any, value: Any, said: str) -> None:
    """With its place and what it should be."""
    with pytest.raises(TypeError, match=said):
        read_typed(wanted, value)
