"""Pipelines as text: reading, printing back, building, and the contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopar.errors import OptionError, PipelineError, UnknownNameError
from autopar.passes.pipeline import PassEntry, build, check_contract, parse, render

names = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,8}", fullmatch=True)
values = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
entries = st.builds(
    PassEntry, names, st.dictionaries(st.from_regex(r"[a-z_]\w{0,8}", fullmatch=True), values, max_size=3)
)


@given(pipeline=st.lists(entries, min_size=1, max_size=4))
def test_render_reads_back(pipeline: list[PassEntry]) -> None:
    """Names, option names, and values of every kind, with their types."""
    again = parse(render(pipeline))
    assert list(again) == pipeline
    kinds = [type(value) for entry in again for value in entry.options.values()]
    assert kinds == [type(value) for entry in pipeline for value in entry.options.values()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", [PassEntry("a")]),
        (" a , b ", [PassEntry("a"), PassEntry("b")]),
        ("a{}", [PassEntry("a")]),
        ("a{x=1, y = 2.5,}", [PassEntry("a", {"x": 1, "y": 2.5})]),
        ("a{x=true,y=NONE,z=-1e3}", [PassEntry("a", {"x": True, "y": None, "z": -1000.0})]),
        ("a{x=torch,y='a,b}',z=\"it's\"}", [PassEntry("a", {"x": "torch", "y": "a,b}", "z": "it's"})]),
        ("a{x=3d}", [PassEntry("a", {"x": "3d"})]),
    ],
)
def test_parse(text: str, expected: list[PassEntry]) -> None:
    """Spaces, trailing commas, quotes."""
    assert list(parse(text)) == expected


@pytest.mark.parametrize(
    ("text", "character", "found"),
    [
        ("", 1, "the end"),
        ("a,,b", 3, "','"),
        ("a,", 3, "the end"),
        ("a b", 3, "'b'"),
        ("a{", 3, "the end"),
        ("a{1}", 3, "'1'"),
        ("a{x}", 3, "'x'"),
        ("a{x=}", 5, "'}'"),
        ("a{x=1 y=2}", 7, "'y'"),
        ("a{x='b}", 5, '"\'"'),
        ("9a", 1, "'9'"),
        ("a{x=1,x=2}", 7, "'x'"),
    ],
)
def test_unreadable_text_is_pointed_at(text: str, character: int, found: str) -> None:
    """The message counts characters from 1 and says what was expected."""
    with pytest.raises(PipelineError) as caught:
        parse(text)
    assert f"at character {character}: expected " in str(caught.value)
    assert f"found {found}, in {text!r}" in str(caught.value)


def test_build_makes_passes_with_their_options() -> None:
    """In order."""
    shapes, bucket = build(parse("shapes,bucket{cap_mb=3}"))
    assert (shapes.name, bucket.name, bucket.cap_mb) == ("shapes", "bucket", 3)  # type: ignore[attr-defined]


def test_unknown_pass_suggests_the_nearest() -> None:
    """And lists what there is."""
    with pytest.raises(UnknownNameError, match=r"no pass named 'shape'\. Did you mean 'shapes'\? Known: .*bucket"):
        build(parse("shape"))


def test_unknown_option_lists_the_pass_s_own() -> None:
    """The options of the pass are in the message."""
    with pytest.raises(OptionError, match=r"'bucket' has no option 'cap'\. Its options: cap_mb, first_mb\."):
        build(parse("bucket{cap=3}"))


def test_refused_value_names_the_pass() -> None:
    """What the constructor says is passed on."""
    with pytest.raises(OptionError, match=r"replicas"):
        build(parse("replicate{replicas=0}"))


@pytest.mark.parametrize("value", ["much", "true", "-1", "1e999"])
def test_cap_that_is_no_number_is_refused(value: str) -> None:
    """Before anything runs."""
    with pytest.raises(OptionError, match="cap_mb"):
        build(parse(f"bucket{{cap_mb={value}}}"))


@dataclass
class Step:
    """A pass that is nothing but its contract."""

    name: str
    requires: frozenset[str] = frozenset()
    provides: frozenset[str] = frozenset()
    changed: ClassVar[bool] = False

    def run(self, program: Any, ctx: Any) -> Any:
        """Never called."""
        raise AssertionError


def test_contract_that_holds() -> None:
    """A fact may be provided anywhere before."""
    check_contract([Step("a", provides=frozenset({"x"})), Step("b"), Step("c", frozenset({"x", "captured"}))])


def test_contract_error_says_what_is_missing_and_what_ran_before() -> None:
    """And which known pass would provide it."""
    with pytest.raises(PipelineError) as caught:
        check_contract([Step("a"), Step("b"), Step("c", frozenset({"plan", "shapes"}))])
    text = str(caught.value)
    assert "Pass 'c' requires 'plan', 'shapes', which nothing before it provides (before it: a, b)." in text
    assert "Put one of these before it: bucket, replicate, shapes." in text


def test_contract_error_of_the_first_pass() -> None:
    """Nothing ran before it, and no known pass would help."""
    with pytest.raises(PipelineError, match=r"before it: nothing\)\. No known pass provides it\."):
        check_contract([Step("a", frozenset({"moon"}))])
