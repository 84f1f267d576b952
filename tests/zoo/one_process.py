"""One process: the parallel model against the plain one, and how much of it was captured."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import autopar
from autopar.attach import attachment_of
from tests.zoo.arrivals import arriving, exchanged
from tests.zoo.difference import Difference, largest
from tests.zoo.entry import Entry
from tests.zoo.measures import Measures, measure
from tests.zoo.steps import Step, build, make_inputs, run_step

__all__ = ["Outcome", "check"]

SIZES = (2, 3)  # of the first and second batch: the graph must not depend on it


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the check of one model came to.

    Attributes:
        difference: the largest of anything that a step leaves behind, over both batches.
        measures: of the program that ran; None where everything went eagerly.
        exchanged: pairs of parameters whose gradients arrive the other way round in the plain model than
            the buckets were made for, of those that the gate's step gave a gradient.
        still: trainable parameters whose gradient is zero or missing in the plain model, as a share.
        capture_seconds: capture with its gate, and all passes.
        eager_seconds: a step of the plain model, the second one.
    """

    difference: Difference
    measures: Measures
    exchanged: list[tuple[str, str]]
    still: float
    capture_seconds: float
    eager_seconds: float


def check(entry: Entry) -> Outcome:
    """Trains a model for two steps, through autopar and without, from the same seeds."""
    plain = build(entry)
    expected, orders, seconds = [], [], 0.0
    for step, size in enumerate(SIZES):
        started = time.perf_counter()
        with arriving(plain) as arrivals:
            expected.append(run_step(entry, plain, make_inputs(entry, size, seed=10 + step), seed=20 + step))
        orders.append(arrivals)
        seconds = time.perf_counter() - started
    model = build(entry)
    started = time.perf_counter()
    autopar.parallelize(model, "ddp", make_inputs(entry, SIZES[0], seed=10))
    capture_seconds = time.perf_counter() - started
    difference = Difference()
    for step, size in enumerate(SIZES):
        found = run_step(entry, model, make_inputs(entry, size, seed=10 + step), seed=20 + step)
        difference = max(difference, _compare(found, expected[step]), key=lambda one: one.ulps)
    attachment = attachment_of(model)
    assert attachment is not None
    compilation = attachment.compilation
    assert compilation is not None
    seen = [name for name in orders[0] if name in compilation.before.arrivals]
    return Outcome(
        difference=difference,
        measures=measure(compilation.program),
        exchanged=exchanged(compilation.lowered.ready_order, seen),
        still=_still(expected[0]),
        capture_seconds=capture_seconds,
        eager_seconds=seconds,
    )


def _compare(found: Step, expected: Step) -> Difference:
    def tensors(step: Step) -> dict[str, Any]:
        return {"the loss": step.loss, **step.gradients, **step.buffers, **step.draws}

    return largest(tensors(found), tensors(expected))


def _still(step: Step) -> float:
    zero = [gradient is None or not gradient.to_dense().any() for gradient in step.gradients.values()]
    return sum(zero) / len(zero)
