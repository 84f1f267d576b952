"""Running a pipeline: order, records, provenance, stopping, and what is said when a pass fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from autopar.capture.ladder import capture
from autopar.errors import InvalidProgramError, PassError, PipelineError, PlanError, UnknownNameError
from autopar.passes.base import PassContext, PassResult
from autopar.passes.pipeline import build, parse
from autopar.passes.runner import run_pipeline
from autopar.program import Program, Remark, info
from tests.passes.programs import MLP


@dataclass
class Does:
    """A pass that does what a function says."""

    action: Callable[[Program], Any]
    name: str = "does"
    requires: frozenset[str] = frozenset()
    provides: frozenset[str] = frozenset()

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """The action; without a result of its own, nothing changed."""
        return self.action(program) or PassResult(program, changed=False)


def program() -> Program:
    """A small one."""
    return capture(MLP(), (torch.ones(3, 4),))


def double(program: Program) -> PassResult:
    """Puts a multiplication before the output."""
    (output,) = program.find("output")
    with program.graph.inserting_before(output):
        doubled = program.graph.call_function(torch.mul, (output.args[0][0], 2))  # type: ignore[index]
    output.args = ((doubled,),)
    return PassResult(program, changed=True, remarks=(Remark(kind="passed", stage="does", message="Doubled."),))


def test_records_say_what_each_pass_did() -> None:
    """Names, change, sizes before and after, time."""
    done, records = run_pipeline(program(), [*build(parse("inline-modules")), Does(double)], PassContext())
    assert [record.name for record in records] == ["inline-modules", "does"]
    assert [record.changed for record in records] == [True, True]
    assert records[0].nodes_after == records[1].nodes_before
    assert records[1].nodes_after == records[1].nodes_before + 1
    assert all(record.seconds >= 0 for record in records)
    assert done.remarks[-1].message == "Doubled."


def test_program_runs_what_the_passes_made() -> None:
    """Its code is generated anew."""
    start = program()
    before = start.graph_module(torch.ones(3, 4))[0]
    done, _ = run_pipeline(start, [Does(double)], PassContext())
    assert torch.equal(done.graph_module(torch.ones(3, 4))[0], before * 2)


def test_new_nodes_know_their_maker() -> None:
    """Nodes of capture keep theirs."""
    done, _ = run_pipeline(program(), [*build(parse("inline-modules")), Does(double)], PassContext())
    makers = {info(node).created_by for node in done.graph.nodes if node.op == "call_function"}
    assert makers == {"capture", "inline-modules", "does"}


def test_facts_accumulate() -> None:
    """What a pass provides holds afterwards."""
    done, _ = run_pipeline(program(), build(parse("shapes,backward-order")), PassContext())
    assert done.provides == {"captured", "shapes", "backward-order"}


def test_stop_after() -> None:
    """The named pass is the last that runs."""
    passes = build(parse("inline-modules,shapes,backward-order"))
    _, records = run_pipeline(program(), passes, PassContext(), stop_after="shapes")
    assert [record.name for record in records] == ["inline-modules", "shapes"]


def test_stop_after_an_unknown_pass() -> None:
    """It must be one of this pipeline."""
    with pytest.raises(UnknownNameError, match="no pass of this pipeline named 'bucket'"):
        run_pipeline(program(), build(parse("shapes")), PassContext(), stop_after="bucket")


def test_nothing_runs_when_the_contract_fails() -> None:
    """Not even the first pass."""
    first = Does(lambda program: pytest.fail("it ran"))
    with pytest.raises(PipelineError, match="requires 'backward-order'"):
        run_pipeline(program(), [first, *build(parse("bucket"))], PassContext())


def test_failing_pass_is_named() -> None:
    """With the model, the cause and a mend."""

    def fails(program: Program) -> None:
        raise ZeroDivisionError("planted")

    with pytest.raises(PassError, match=r"Pass 'does' failed on MLP: ZeroDivisionError: planted.*--dis") as caught:
        run_pipeline(program(), [Does(fails)], PassContext())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_errors_of_ours_pass_through() -> None:
    """They say already what is wrong."""

    def fails(program: Program) -> None:
        raise PlanError("mine")

    with pytest.raises(PlanError, match=r"^mine$"):
        run_pipeline(program(), [Does(fails)], PassContext())


def test_pass_that_returns_something_else() -> None:
    """A common slip of a first pass; the message shows the right return."""
    with pytest.raises(PassError, match=r"'does' returned a Program instead of a PassResult.*return PassResult"):
        run_pipeline(program(), [Does(lambda program: program)], PassContext())


def test_broken_program_is_reported_by_the_pass_that_broke_it() -> None:
    """Later passes do not run."""

    def breaks(program: Program) -> None:
        (output,) = program.find("output")
        program.graph.erase_node(output)

    later = Does(lambda program: pytest.fail("it ran"), name="later")
    with pytest.raises(InvalidProgramError, match=r"After pass 'breaks' the program of MLP breaks the rule"):
        run_pipeline(program(), [Does(lambda program: None), Does(breaks, name="breaks"), later], PassContext())
