"""Each rule of the verifier catches the bug that it is there for, by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn

from autopar import ops
from autopar.errors import InvalidProgramError
from autopar.partitioner.plan import LocalParameter, Plan
from autopar.passes.base import PassContext, PassResult
from autopar.passes.pipeline import build, parse
from autopar.passes.runner import run_pipeline
from autopar.passes.verifier import RULES, verify
from autopar.program import Program, annotate
from tests.passes.programs import DDP, MODELS, compiled, ddp


def plan_of(program: Program) -> Plan:
    """The plan, which is there."""
    assert program.plan is not None
    return program.plan


def with_plan(program: Program, **changes: object) -> Program:
    """The program with another plan."""
    return dataclasses.replace(program, plan=dataclasses.replace(plan_of(program), **changes))  # type: ignore[arg-type]


def uses_a_later_node(program: Program) -> Program:
    """The graph is no longer in order."""
    *_, last, output = program.graph.nodes
    first = next(node for node in program.graph.nodes if node.op == "call_function")
    first.append(output)
    assert last is not output
    return program


def loses_its_output(program: Program) -> Program:
    """There is nothing to return."""
    program.graph.erase_node(next(program.find("output")))
    return program


def takes_another_input(program: Program) -> Program:
    """The caller does not know of it."""
    with program.graph.inserting_before(next(iter(program.graph.nodes))):
        program.graph.placeholder("more")
    return program


def reorders_its_inputs(program: Program) -> Program:
    """The caller would hand over the wrong tensors."""
    first, second = program.find("placeholder")
    second.append(first)
    return program


def drops_a_parameter(program: Program) -> Program:
    """A bucket lost its last parameter."""
    *rest, last = plan_of(program).buckets
    return with_plan(program, buckets=(*rest, dataclasses.replace(last, parameters=last.parameters[:-1])))


def plans_a_parameter_twice(program: Program) -> Program:
    """It is in two buckets."""
    first, second, *rest = plan_of(program).buckets
    double = dataclasses.replace(second, parameters=second.parameters + first.parameters)
    return with_plan(program, buckets=(first, double, *rest))


def plans_an_unknown_parameter(program: Program) -> Program:
    """The model has none of that name."""
    local = LocalParameter(name="ghost", reason="none")
    return with_plan(program, local=(local,))


def keeps_a_gradient_local(program: Program) -> Program:
    """A parameter with a gradient is declared to have none."""
    first, *rest = plan_of(program).buckets
    (name,) = first.parameters
    return with_plan(program, buckets=tuple(rest), local=(LocalParameter(name=name, reason="planted"),))


def mixes_kinds(program: Program) -> Program:
    """A bucket says another dtype than its parameters have."""
    first, *rest = plan_of(program).buckets
    return with_plan(program, buckets=(dataclasses.replace(first, dtype="float16"), *rest))


def launches_in_another_order(program: Program) -> Program:
    """The first two buckets changed places."""
    first, second, *rest = plan_of(program).buckets
    swapped = (dataclasses.replace(second, index=0), dataclasses.replace(first, index=1))
    return with_plan(program, buckets=(*swapped, *rest))


def uses_a_parameter_unsynchronised(program: Program) -> Program:
    """One use reads past the node."""
    sync = next(program.find("call_function", ops.sync_gradients))
    (part,) = sync.users
    part.replace_all_uses_with(sync.args[0])  # type: ignore[arg-type]
    return program


def loses_a_node(program: Program) -> Program:
    """A bucket is never reduced."""
    uses_a_parameter_unsynchronised(program)
    sync = next(program.find("call_function", ops.sync_gradients))
    for part in list(sync.users):
        program.graph.erase_node(part)
    program.graph.erase_node(sync)
    return program


def synchronises_another_parameter(program: Program) -> Program:
    """A node carries what belongs to another bucket."""
    first, *_, last = program.find("call_function", ops.sync_gradients)
    last.args = first.args
    return program


def synchronises_an_unplanned_bucket(program: Program) -> Program:
    """The plan ends before it."""
    sync = next(program.find("call_function", ops.sync_gradients))
    sync.kwargs = {"bucket": 77}
    return program


def synchronises_a_bucket_twice(program: Program) -> Program:
    """The gradient would be averaged twice."""
    sync = next(program.find("call_function", ops.sync_gradients))
    with program.graph.inserting_after(sync):
        again = program.graph.node_copy(sync)
    next(iter(sync.users)).args = (again, 0)
    return program


def annotates_an_unplanned_bucket(program: Program) -> Program:
    """Views and printers would look for it."""
    annotate(next(program.find("call_function")), bucket=77)
    return program


PLANTED: dict[Callable[[Program], Program], tuple[str, str]] = {
    uses_a_later_node: ("the graph is well formed", "before"),
    loses_its_output: ("there is one output", "it has 0 output nodes"),
    takes_another_input: ("the inputs match the signature", "more"),
    drops_a_parameter: ("every trainable parameter is planned once", "no bucket and not declared local"),
    plans_a_parameter_twice: ("every trainable parameter is planned once", "in bucket 0 and bucket 1"),
    plans_an_unknown_parameter: ("every trainable parameter is planned once", "'ghost'"),
    keeps_a_gradient_local: ("every trainable parameter is planned once", "declared local but gets a gradient"),
    mixes_kinds: ("a bucket holds parameters of one kind", "bucket 0 is float16"),
    launches_in_another_order: ("buckets are launched in ready order", "bucket 1 is ready before bucket 0"),
    uses_a_parameter_unsynchronised: ("every bucket is synchronised as planned", "is used unsynchronised by"),
    loses_a_node: ("every bucket is synchronised as planned", "has no node"),
    synchronises_another_parameter: ("every bucket is synchronised as planned", "lacks"),
    synchronises_an_unplanned_bucket: ("every bucket is synchronised as planned", "bucket 77"),
    synchronises_a_bucket_twice: ("every bucket is synchronised as planned", "several nodes"),
    annotates_an_unplanned_bucket: ("annotations name planned buckets", "annotated with bucket 77"),
}


@pytest.mark.parametrize(("bug", "expected"), PLANTED.items(), ids=[bug.__name__ for bug in PLANTED])
def test_planted_bug_trips_its_rule(bug: Callable[[Program], Program], expected: tuple[str, str]) -> None:
    """And the message names the node or the parameter."""
    rule, detail = expected
    with pytest.raises(InvalidProgramError) as caught:
        verify(bug(ddp("mlp")), after="planted")
    assert f"After pass 'planted' the program of MLP breaks the rule {rule!r}: " in str(caught.value)
    assert detail in str(caught.value)
    assert "This is a defect of the pass 'planted'" in str(caught.value)


def test_every_rule_has_a_planted_bug() -> None:
    """A rule that nothing trips is not known to work."""
    assert {rule for rule, _ in PLANTED.values()} == set(RULES)


def test_reordered_inputs() -> None:
    """Names are compared, and not only counted."""
    program = compiled(nn.Bilinear(2, 3, 4), DDP, torch.ones(3, 2), torch.ones(3, 3))
    with pytest.raises(InvalidProgramError, match="the inputs match the signature"):
        verify(reorders_its_inputs(program), after="planted")


@pytest.mark.parametrize("name", MODELS)
def test_sound_programs_pass(name: str) -> None:
    """Every model, after every pass of the pipeline, lifted or not."""
    cls, batch = MODELS[name]
    compiled(cls(), DDP + ",lift-parameters", batch)


@pytest.mark.parametrize("bug", [drops_a_parameter, uses_a_parameter_unsynchronised, takes_another_input])
def test_broken_pass_is_named_in_a_pipeline(bug: Callable[[Program], Program]) -> None:
    """Not the one before, nor the one after."""

    class Broken:
        name = "broken"
        requires: frozenset[str] = frozenset()
        provides: frozenset[str] = frozenset()

        def run(self, program: Program, ctx: PassContext) -> PassResult:
            """Plants the bug."""
            return PassResult(bug(program), changed=True)

    from autopar.capture.ladder import capture

    cls, batch = MODELS["mlp"]
    passes = build(parse(DDP))
    with pytest.raises(InvalidProgramError, match="After pass 'broken'"):
        run_pipeline(capture(cls(), (batch,)), [*passes, Broken(), *build(parse("lift-parameters"))], PassContext())
