"""What the passes that compress gradients share: they choose, bucket by bucket, and write it into plan and graph."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from autopar import ops
from autopar.errors import OptionError
from autopar.partitioner.plan import BucketSpec, ParameterSpec, Plan
from autopar.partitioner.prediction import resized
from autopar.passes.base import PassContext, PassResult
from autopar.passes.pipeline import PassEntry
from autopar.program import Program, Remark

__all__ = ["Compression", "is_real"]


class Compression(ABC):
    """A pass that lets buckets travel in another form than their gradients'; its dataclass fields are its options.

    Buckets that an earlier pass compresses are left to it, so ``powersgd{rank=4},bf16`` gives the second what the
    first cannot take. What reduces such a bucket is the compressor of the same name in ``autopar.runtime.compressors``.
    """

    name: ClassVar[str]
    may_be_idle: ClassVar[bool] = False  # whether a model that has nothing for it is none of its business
    requires: ClassVar[frozenset[str]] = frozenset({"buckets", "synced"})
    provides: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def refusal(self, bucket: BucketSpec, members: Sequence[ParameterSpec]) -> str:
        """Why this bucket cannot travel in that form; empty where it can."""

    @abstractmethod
    def wire_nbytes(self, members: Sequence[ParameterSpec]) -> int:
        """Bytes that a rank hands to collectives for a bucket of these parameters."""

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Marks the buckets and their nodes.

        Raises:
            OptionError: there is nothing that it could compress, or a communication hook reduces the buckets.
        """
        assert program.plan is not None, "the contract promises a plan"
        plan = program.plan
        text = self.text()
        if ctx.options.get("comm_hook"):
            raise OptionError(
                f"Buckets cannot travel as {text} where the hook {ctx.options['comm_hook']} reduces them.",
                mend="Leave one of the two out.",
            )
        specs = {spec.name: spec for spec in plan.parameters}
        buckets, left = [], {}
        for bucket in plan.buckets:
            members = [specs[name] for name in bucket.parameters]
            reason = "" if bucket.compression else self.refusal(bucket, members)
            if reason:
                left[bucket.index] = reason
            if bucket.compression or reason:
                buckets.append(bucket)
            else:
                buckets.append(
                    dataclasses.replace(bucket, compression=text, wire_nbytes=self.wire_nbytes(members)),
                )
        if len(left) == len(buckets) > 0 and not self.may_be_idle:
            raise OptionError(
                f"Pass {text!r} can compress no gradient of {program.name}.",
                why=f"Bucket 0: {left[0]}.",
                mend="Leave it out, or choose another: fp16, bf16, powersgd, topk.",
            )
        changed = tuple(buckets) != plan.buckets
        if changed:
            program = dataclasses.replace(program, plan=_with_buckets(plan, buckets))
        _mark(program, buckets)
        return PassResult(program, changed=changed, remarks=_remarks(self.name, text, buckets, left))

    def text(self) -> str:
        """The pass with its options, as it is written in a pipeline."""
        given = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)  # type: ignore[arg-type]  # each pass is a dataclass
            if getattr(self, field.name) != field.default
        }
        return str(PassEntry(self.name, given))


def is_real(bucket: BucketSpec) -> bool:
    """Whether its elements are floating-point numbers in a dense tensor."""
    return bucket.layout == "strided" and bucket.dtype.startswith(("float", "bfloat"))


def _with_buckets(plan: Plan, buckets: Sequence[BucketSpec]) -> Plan:
    prediction = plan.prediction and resized(
        plan.prediction, [one.sent_nbytes for one in plan.buckets], [one.sent_nbytes for one in buckets]
    )
    return dataclasses.replace(plan, buckets=tuple(buckets), prediction=prediction)


def _mark(program: Program, buckets: Sequence[BucketSpec]) -> None:
    for node in program.find("call_function", ops.sync_gradients):
        compression = buckets[node.kwargs["bucket"]].compression  # type: ignore[index]
        if compression:
            node.kwargs = {**node.kwargs, "compression": compression}


def _remarks(stage: str, text: str, buckets: Sequence[BucketSpec], left: dict[int, str]) -> tuple[Remark, ...]:
    own = [bucket for bucket in buckets if bucket.compression == text]
    before, after = sum(one.nbytes for one in own), sum(one.sent_nbytes for one in own)
    passed = Remark(
        code="AP213",
        kind="passed",
        stage=stage,
        message=f"{len(own)} of {len(buckets)} buckets travel as {text}: {after:,} instead of {before:,} bytes a step.",
    )
    missed = [
        Remark(code="AP214", kind="analysis", stage=stage, message=f"Bucket {index} is not compressed: {reason}.")
        for index, reason in left.items()
    ]
    return (passed, *missed)
