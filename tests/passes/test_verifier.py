"""Each rule of the verifier catches the bug that it is there for, by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from autopar.errors import InvalidProgramError
from autopar.passes.base import PassContext, PassResult
from autopar.passes.pipeline import build, parse
from autopar.passes.rules.promises import PROMISES
from autopar.passes.runner import run_pipeline
from autopar.passes.verifier import RULES, verify
from autopar.program import Program
from tests.passes.broken import (
    PLANTED,
    drops_a_parameter,
    reorders_its_inputs,
    takes_another_input,
    uses_a_parameter_unsynchronised,
)
from tests.passes.programs import DDP, MODELS, compiled, ddp


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


def test_every_promise_has_a_planted_bug() -> None:
    """Buckets and synchronisation promise a plan, too, whose absence is planted once."""
    broken = {detail.split("'")[1] for _, detail in PLANTED.values() if detail.startswith("it provides")}
    assert broken | {"buckets", "synced"} == set(PROMISES)


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
