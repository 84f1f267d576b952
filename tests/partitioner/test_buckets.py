"""Which parameters travel together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopar.errors import OptionError
from autopar.partitioner.buckets import assign_buckets
from autopar.partitioner.plan import ParameterSpec


def spec(
    name: str, size: int = 1, *, dtype: str = "float32", layout: str = "strided", route: str = "graph"
) -> ParameterSpec:
    """A parameter of ``size`` elements of 4 bytes."""
    return ParameterSpec(name=name, shape=(size,), dtype=dtype, device="cpu", itemsize=4, layout=layout, route=route)


def names(specs: list[ParameterSpec], order: str, *, cap: int, first: int | None = None) -> list[str]:
    """The buckets as words of one-letter names."""
    buckets = assign_buckets(specs, list(order), cap_bytes=cap, first_cap_bytes=cap if first is None else first)
    assert [bucket.index for bucket in buckets] == list(range(len(buckets)))
    return ["".join(bucket.parameters) for bucket in buckets]


def test_bucket_is_closed_by_what_reaches_the_cap() -> None:
    """The parameter that fills it is still in it, as in DistributedDataParallel."""
    assert names([spec(name) for name in "abcde"], "edcba", cap=8) == ["ed", "cb", "a"]


def test_large_parameter_is_not_split() -> None:
    """A bucket may be larger than its cap."""
    assert names([spec("a"), spec("b", 100), spec("c")], "abc", cap=8) == ["ab", "c"]


def test_first_bucket_has_its_own_cap() -> None:
    """A small first message starts early."""
    assert names([spec(name) for name in "abcdef"], "abcdef", cap=12, first=4) == ["a", "bcd", "ef"]


def test_cap_0_gives_each_parameter_its_own() -> None:
    """Also to one without elements."""
    assert names([spec("a"), spec("b", 0), spec("c")], "abc", cap=0) == ["a", "b", "c"]


@pytest.mark.parametrize("other", [{"dtype": "float16"}, {"route": "hook"}])
def test_kinds_do_not_mix(other: dict[str, str]) -> None:
    """One message has one dtype, device and route; buckets are numbered by their last parameter."""
    specs = [spec("a"), spec("b", **other), spec("c"), spec("d", **other)]
    assert names(specs, "abcd", cap=100) == ["ac", "bd"]
    assert names(specs, "bacd", cap=100) == ["ac", "bd"]
    assert names(specs, "abdc", cap=100) == ["bd", "ac"]


def test_sparse_parameter_travels_alone() -> None:
    """Even between two of the same kind."""
    specs = [spec("a"), spec("s", layout="sparse"), spec("t", layout="sparse"), spec("b")]
    assert names(specs, "astb", cap=100) == ["s", "t", "ab"]


def test_what_is_never_ready_is_left_out() -> None:
    """And names without a parameter are ignored."""
    assert names([spec("a"), spec("b")], "xa", cap=100) == ["a"]


def test_bucket_knows_its_bytes_and_kind() -> None:
    """The sum of its parameters."""
    (bucket,) = assign_buckets([spec("a", 3), spec("b", 5)], ["b", "a"], cap_bytes=100, first_cap_bytes=100)
    assert (bucket.nbytes, bucket.dtype, bucket.device, bucket.route) == (32, "float32", "cpu", "graph")


@pytest.mark.parametrize("caps", [(-1, 0), (0, -1)])
def test_negative_caps_are_refused(caps: tuple[int, int]) -> None:
    """The message names the option and what 0 means."""
    with pytest.raises(OptionError, match=r"cap_bytes is -1 bytes\. A cap is 0 or more"):
        assign_buckets([], [], cap_bytes=caps[0], first_cap_bytes=caps[1])


@given(
    kinds=st.lists(
        st.tuples(st.integers(0, 50), st.sampled_from(["float32", "float16"]), st.sampled_from(["strided", "sparse"]))
    ),
    cap=st.integers(0, 300),
    first=st.integers(0, 300),
)
def test_every_parameter_is_in_one_bucket_and_buckets_are_in_ready_order(
    kinds: list[tuple[int, str, str]], cap: int, first: int
) -> None:
    """Whatever the sizes, dtypes and caps are."""
    specs = [spec(f"p{i}", size, dtype=dtype, layout=layout) for i, (size, dtype, layout) in enumerate(kinds)]
    order = [one.name for one in reversed(specs)]
    buckets = assign_buckets(specs, order, cap_bytes=cap, first_cap_bytes=first)
    assert sorted(name for bucket in buckets for name in bucket.parameters) == sorted(order)
    last = [max(order.index(name) for name in bucket.parameters) for bucket in buckets]
    assert last == sorted(last)
    for bucket in buckets:
        assert [*bucket.parameters] == sorted(bucket.parameters, key=order.index)
        assert bucket.nbytes - specs[int(bucket.parameters[-1][1:])].nbytes < max(cap, first, 1)
