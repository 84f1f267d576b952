"""What a plan predicted of a step beside what was measured, as JSON values."""

from __future__ import annotations

from typing import Any

from autopar.partitioner.plan import BucketSpec, Plan
from autopar.runtime.compression import CompressedBuckets
from autopar.runtime.step_times import StepTimes

__all__ = ["REPORT_VERSION", "step_report"]

REPORT_VERSION = 1


def step_report(plan: Plan, times: StepTimes | None, compressed: CompressedBuckets | None = None) -> dict[str, Any]:
    """Bucket by bucket, in milliseconds from the beginning of the forward; this rank's times.

    Args:
        plan: with or without a prediction.
        times: of the last steps; None where nothing travels.
        compressed: the buckets that travel in another form.
    """
    expected = plan.prediction
    travels = None if expected is None else expected.buckets
    seen = times if times is not None and times.steps else None
    return {
        "version": REPORT_VERSION,
        "model": plan.model,
        "strategy": plan.strategy,
        "rates": None if expected is None else expected.rates.to_json(),
        "predicted": None if expected is None else _step(expected.computed, expected.end),
        "measured": None if seen is None else {**_step(*seen.step()), "steps": seen.steps},
        "buckets": [
            {
                "index": bucket.index,
                "parameters": len(bucket.parameters),
                "nbytes": bucket.nbytes,
                "compression": bucket.compression,
                "sent_nbytes": _sent(bucket, compressed),
                "predicted": None if travels is None else _travel(travels[place].ready, travels[place].end),
                "measured": None if seen is None else _travel(*seen.bucket(place)),
            }
            for place, bucket in enumerate(plan.buckets)
        ],
    }


def _sent(bucket: BucketSpec, compressed: CompressedBuckets | None) -> int:
    measured = None if compressed is None else compressed.sent_nbytes(bucket.index)
    return bucket.nbytes if measured is None else measured


def _step(computed: float, end: float) -> dict[str, float]:
    return {"computed_ms": 1e3 * computed, "step_ms": 1e3 * end, "exposed_ms": 1e3 * (end - computed)}


def _travel(sent: float, arrived: float) -> dict[str, float]:
    return {"sent_ms": 1e3 * sent, "arrived_ms": 1e3 * arrived}
