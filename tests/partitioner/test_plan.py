"""The Plan: JSON that reads back, a digest, and errors that say what is wrong with a file."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopar.errors import PlanError
from autopar.partitioner.plan import BucketSpec, LocalParameter, ParameterSpec, Plan

SPEC = ParameterSpec(name="fc.weight", shape=(3, 4), dtype="float32", device="cpu", itemsize=4)
BIAS = ParameterSpec(name="fc.bias", shape=(3,), dtype="float32", device="cpu", itemsize=4)
PLAN = Plan(
    strategy="ddp",
    pipeline="shapes,bucket{cap_mb=25}",
    model="Net",
    parameters=(SPEC, BIAS),
    buckets=(BucketSpec(index=0, parameters=("fc.weight",), nbytes=48, dtype="float32", device="cpu"),),
    local=(LocalParameter(name="fc.bias", reason="no path"),),
    buffers=("norm.running_mean",),
    combine=("concat", "mean"),
    program="abc",
    options={"bucket_cap_mb": 25.0},
)

text = st.text(max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
parameters = st.builds(
    ParameterSpec,
    name=text,
    shape=st.lists(st.integers(0, 9), max_size=4).map(tuple),
    dtype=st.sampled_from(["float32", "bfloat16"]),
    device=st.sampled_from(["cpu", "cuda"]),
    itemsize=st.integers(1, 16),
    layout=st.sampled_from(["strided", "sparse"]),
    route=st.sampled_from(["graph", "hook"]),
)
buckets = st.builds(
    BucketSpec,
    index=st.integers(0, 99),
    parameters=st.lists(text, max_size=4).map(tuple),
    nbytes=st.integers(0, 2**50),
    dtype=text,
    device=text,
)
plans = st.builds(
    Plan,
    strategy=text,
    pipeline=text,
    model=text,
    parameters=st.lists(parameters, max_size=3).map(tuple),
    buckets=st.lists(buckets, max_size=3).map(tuple),
    local=st.lists(st.builds(LocalParameter, name=text, reason=text), max_size=2).map(tuple),
    buffers=st.lists(text, max_size=3).map(tuple),
    combine=st.lists(st.sampled_from(["concat", "mean", "sum", "same"]), max_size=3).map(tuple),
    program=text,
    options=st.dictionaries(text, json_values, max_size=3),
)


@given(plan=plans)
def test_json_reads_back_to_an_equal_plan(plan: Plan) -> None:
    """And equal plans have equal digests."""
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.digest() == plan.digest()


def test_digest_depends_on_content_only() -> None:
    """Not on the order of the options; any other change shows."""
    one, other = (dataclasses.replace(PLAN, options=options) for options in ({"a": 1, "b": 2}, {"b": 2, "a": 1}))
    assert one.digest() == other.digest()
    assert one.digest() != PLAN.digest()
    assert dataclasses.replace(PLAN, buckets=()).digest() != PLAN.digest()


def test_sums_and_look_up() -> None:
    """Bytes a step, bytes of a parameter, and the bucket of each parameter."""
    assert PLAN.nbytes == 48
    assert (SPEC.numel, SPEC.nbytes) == (12, 48)
    assert PLAN.bucket_of() == {"fc.weight": 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"not JSON \(line 1: .*Give the plan\.json"),
        ("[1, 2]", "JSON but no plan"),
        ('{"strategy": "ddp"}', "JSON but no plan"),
    ],
)
def test_other_files_are_refused(text: str, message: str) -> None:
    """The message says what the file is instead."""
    with pytest.raises(PlanError, match=message):
        Plan.from_json(text)


def test_other_versions_are_refused() -> None:
    """Both versions are named."""
    raw = json.loads(PLAN.to_json()) | {"version": 99}
    with pytest.raises(PlanError, match=r"has version 99; this autopar reads version 1\..*make a new plan"):
        Plan.from_json(json.dumps(raw))


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw.pop("buckets"),
        lambda raw: raw.update(buckets=3),
        lambda raw: raw.update(buckets=[3]),
        lambda raw: raw.update(surprise=1),
        lambda raw: raw["parameters"][0].pop("shape"),
        lambda raw: raw["local"].append("fc.bias"),
    ],
    ids=["missing", "number", "items", "unknown key", "missing in item", "wrong item"],
)
def test_damaged_plans_are_refused(damage: Any) -> None:
    """Never with a traceback of ours."""
    raw = json.loads(PLAN.to_json())
    damage(raw)
    with pytest.raises(PlanError, match=r"The plan is damaged: .*make a new plan"):
        Plan.from_json(json.dumps(raw))


def test_same_parameters_are_accepted() -> None:
    """In any order: names tell them apart."""
    PLAN.check_parameters([BIAS, SPEC])


@pytest.mark.parametrize(
    ("actual", "message"),
    [
        ([SPEC], "parameter 'fc.bias' is in the plan but not the model"),
        ([SPEC, BIAS, dataclasses.replace(BIAS, name="more")], "parameter 'more' is in the model but not the plan"),
        (
            [SPEC, dataclasses.replace(BIAS, shape=(4,))],
            r"'fc.bias' is planned as float32\[3\] and is float32\[4\]",
        ),
        ([SPEC, dataclasses.replace(BIAS, dtype="float16")], r"planned as float32\[3\] and is float16\[3\]"),
    ],
)
def test_plan_of_another_model_is_refused(actual: list[ParameterSpec], message: str) -> None:
    """The first parameter that differs is named, with the mend."""
    with pytest.raises(PlanError, match=f"made for another model: .*{message}.*transform. again"):
        PLAN.check_parameters(actual)
