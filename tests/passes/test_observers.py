"""Observers see every pass, in a fixed order, and where one failed; timing and counters are observers, too."""

from __future__ import annotations

import pytest
import torch

from autopar.errors import InvalidProgramError, PassError
from autopar.passes.base import Pass, PassContext, PassResult
from autopar.passes.observers import PassObserver, observing
from autopar.passes.pipeline import build, parse
from autopar.passes.runner import run_pipeline
from autopar.program import Program
from tests.passes.test_runner import Does, double, program


class Tells(PassObserver):
    """Writes down what it is told."""

    def __init__(self, name: str, heard: list[str]) -> None:
        self.name, self.heard = name, heard

    def before_pass(self, one: Pass, program: Program, ctx: PassContext) -> None:
        """Pass and strategy."""
        self.heard.append(f"{self.name}: before {one.name} for {ctx.strategy}")

    def after_pass(self, one: Pass, program: Program, result: PassResult) -> None:
        """What the pass said."""
        self.heard.append(f"{self.name}: after, changed {result.changed}")

    def verified(self, one: Pass, program: Program) -> None:
        """The size of the graph."""
        self.heard.append(f"{self.name}: verified, {sum(1 for _ in program.find('call_function', torch.mul))} products")

    def failed(self, one: Pass, error: Exception) -> None:
        """The error's class."""
        self.heard.append(f"{self.name}: {one.name} failed, {type(error).__name__}")


def test_each_encloses_those_behind_it() -> None:
    """Before in order, after the other way round, then verified."""
    heard: list[str] = []
    with observing(Tells("ambient", heard)):
        run_pipeline(program(), [Does(double)], PassContext(), observers=[Tells("given", heard)])
    assert heard == [
        "ambient: before does for ddp",
        "given: before does for ddp",
        "given: after, changed True",
        "ambient: after, changed True",
        "ambient: verified, 1 products",
        "given: verified, 1 products",
    ]
    run_pipeline(program(), [Does(double)], PassContext())
    assert len(heard) == 6  # the block is over


def test_failures_are_told() -> None:
    """Of a pass that raises, and of one that leaves a broken program: the latter came back."""

    def raises(program: Program) -> None:
        raise ZeroDivisionError

    def breaks(program: Program) -> None:
        (output,) = program.find("output")
        program.graph.erase_node(output)

    heard: list[str] = []
    for action, error in ((raises, PassError), (breaks, InvalidProgramError)):
        with pytest.raises(error):
            run_pipeline(program(), [Does(action)], PassContext(), observers=[Tells("it", heard)])
    assert heard == [
        "it: before does for ddp",
        "it: does failed, PassError",
        "it: before does for ddp",
        "it: after, changed False",
        "it: does failed, InvalidProgramError",
    ]


def test_records_count_nodes_and_what_passes_count() -> None:
    """Nodes that are there under another name are made and erased, not just more or fewer."""

    def counts(program: Program) -> PassResult:
        return PassResult(double(program).program, changed=True, counters={"doubled": 1})

    _, records = run_pipeline(program(), [*build(parse("inline-modules")), Does(counts)], PassContext())
    assert records[0].counters == {"nodes made": 9, "nodes erased": 3, "modules opened": 3, "modules kept whole": 0}
    assert records[1].counters == {"nodes made": 1, "doubled": 1}
    assert records[0].nodes_after - records[0].nodes_before == 6


def test_timing_leaves_other_observers_out() -> None:
    """An observer that takes long does not make the pass slow."""

    class Slow(PassObserver):
        def before_pass(self, one: Pass, program: Program, ctx: PassContext) -> None:
            for _ in range(200):
                program.snapshot()

        after_pass = before_pass  # type: ignore[assignment]

    _, (record,) = run_pipeline(program(), [Does(lambda program: None)], PassContext(), observers=[Slow()])
    assert record.seconds < 0.01
