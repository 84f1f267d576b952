"""Which passes may be left out, and that only those are: by name, by AUTOPAR_BISECT_LIMIT, by search."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from autopar.compilation import compile_program
from autopar.errors import OptionError, PipelineError, UnknownNameError
from autopar.passes.base import PassContext, PassResult
from autopar.passes.bisect import first_bad
from autopar.passes.leaving_out import LIMIT, optional, without
from autopar.passes.pipeline import parse, render
from autopar.passes.registry import passes, register_pass
from autopar.program import Program
from autopar.strategies import DDP

OWN = {entry.name for entry in parse(DDP().pipeline())}
TEXT = "tidy,inline-modules,shapes,mark,tidy{hard=true},backward-order,bucket,ddp-sync,use-marks,lift-parameters"


class Tidy:
    """Nobody builds on it."""

    name, requires, provides = "tidy", frozenset[str](), frozenset[str]()

    def __init__(self, hard: bool = False) -> None:
        self.hard = hard

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Nothing."""
        return PassResult(program, changed=False)


class Mark(Tidy):
    """``use-marks`` builds on it."""

    name, provides = "mark", frozenset({"marks"})


class UseMarks(Tidy):
    """May be left out itself, and then ``mark`` may."""

    name, requires = "use-marks", frozenset({"marks"})


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    for cls in (Tidy, Mark, UseMarks):
        register_pass(cls)
    yield
    for cls in (Tidy, Mark, UseMarks):
        passes.remove(cls.name)


def pipeline_with(monkeypatch: pytest.MonkeyPatch, limit: str) -> str:
    """The pipeline in the plan of a compilation under this limit."""
    monkeypatch.setenv(LIMIT, limit)
    return compile_program(nn.Linear(2, 2), (torch.ones(1, 2),), {}, DDP(), pipeline=TEXT, gate=False).plan.pipeline


def test_passes_that_nobody_needs_are_optional() -> None:
    """Those of the strategy are not; one whose facts are used is not once its user is needed."""
    entries = parse(TEXT)
    assert [str(entries[index]) for index in optional(entries, OWN)] == ["tidy", "mark", "tidy{hard=true}", "use-marks"]
    assert [str(entries[index]) for index in optional(entries, OWN | {"use-marks"})] == ["tidy", "tidy{hard=true}"]


def test_left_out_by_name() -> None:
    """Every time that it comes."""
    assert render(without(parse("tidy,shapes,tidy{hard=true}"), ["tidy"], OWN)) == "shapes"


def test_what_cannot_be_left_out() -> None:
    """A pass of the strategy; one that is not there, with the nearest name."""
    with pytest.raises(PipelineError, match=r"'ddp-sync' cannot be left out: .*These can: tidy,"):
        without(parse(TEXT), ["ddp-sync"], OWN)
    with pytest.raises(UnknownNameError, match="Did you mean 'use-marks'"):
        without(parse(TEXT), ["use-mark"], OWN)


def test_limit_lets_the_first_ones_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 is the strategy's own pipeline; many is all; the plan has the pipeline that ran."""
    assert pipeline_with(monkeypatch, "9") == TEXT
    assert pipeline_with(monkeypatch, "2") == TEXT.replace(",tidy{hard=true}", "").replace(",use-marks", "")
    bare = pipeline_with(monkeypatch, "0")
    assert {entry.name for entry in parse(bare)} == OWN


def test_limit_is_said_in_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever forgot the variable finds out."""
    monkeypatch.setenv(LIMIT, "3")
    remarks = compile_program(nn.Linear(2, 2), (torch.ones(1, 2),), {}, DDP(), pipeline=TEXT, gate=False).remarks
    assert "AUTOPAR_BISECT_LIMIT=3 leaves out these passes: use-marks." in [remark.message for remark in remarks]


def test_limit_that_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before anything runs."""
    with pytest.raises(OptionError, match=r"AUTOPAR_BISECT_LIMIT is '-1'\. It must be a number"):
        pipeline_with(monkeypatch, "-1")


@pytest.mark.parametrize("count", range(9))
def test_search_finds_every_first_bad_pass(count: int) -> None:
    """In few runs; and tells a fault of none of them, or no fault, apart."""
    for first in [*range(count + 1), None]:
        asked: list[int] = []

        def fails(limit: int, first: int | None = first, asked: list[int] = asked) -> bool:
            asked.append(limit)
            return first is not None and limit >= first

        assert first_bad(count, fails) == first
        assert len(asked) <= count.bit_length() + 2
        assert len(set(asked)) == len(asked)
