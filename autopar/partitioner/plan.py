"""The Plan: everything that was decided, as pure data that round-trips through JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from autopar.errors import PlanError
from autopar.partitioner.prediction import Prediction
from autopar.partitioner.typed import read_typed

PLAN_VERSION = 1

Route = Literal["graph", "hook"]
Combine = Literal["concat", "mean", "sum", "same"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterSpec:
    """One trainable parameter, as much of it as the partitioner may know.

    Attributes:
        name: canonical dotted name in the user's model, such as ``"blocks.0.fc.weight"``.
        shape: sizes of its dims, in elements.
        dtype: such as ``"float32"``.
        device: device type such as ``"cpu"`` or ``"cuda"`` (never an index: ranks differ in it).
        layout: ``"strided"`` or ``"sparse"``, the layout its gradient will have.
        itemsize: bytes of an element.
        route: ``"graph"`` when every use is an edge of the program, so that a node can gather its
            gradient; ``"hook"`` when it lives in an opaque region and a hook must.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    device: str
    itemsize: int
    layout: str = "strided"
    route: Route = "graph"

    @property
    def numel(self) -> int:
        """Number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def nbytes(self) -> int:
        """Bytes of the parameter, and of its gradient."""
        return self.numel * self.itemsize

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What parameters must share to travel in one bucket."""
        return (self.dtype, self.device, self.layout, self.route)


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketSpec:
    """Parameters whose gradients travel in one message, in the order in which they become ready.

    Attributes:
        index: launch order; bucket 0 is ready first in backward.
        parameters: canonical names, in ready order.
        nbytes: bytes of the gradients.
        dtype, device, layout, route: shared by all parameters of the bucket.
        compression: the pass that compresses the bucket, with its options, such as ``"topk{ratio=0.01}"``;
            empty where the gradients travel as they are.
        wire_nbytes: bytes that a rank hands to collectives for a compressed bucket.
    """

    index: int
    parameters: tuple[str, ...]
    nbytes: int
    dtype: str
    device: str
    layout: str = "strided"
    route: Route = "graph"
    compression: str = ""
    wire_nbytes: int | None = None

    @property
    def sent_nbytes(self) -> int:
        """Bytes that a rank hands to collectives in a step, compressed or not."""
        return self.nbytes if self.wire_nbytes is None else self.wire_nbytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalParameter:
    """A trainable parameter that no bucket carries, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a strategy decided for one model.

    Attributes:
        strategy: registered name, such as ``"ddp"``.
        pipeline: the pass pipeline as text; it parses back.
        model: class name of the model, for messages.
        parameters: every trainable parameter, in registration order.
        buckets: in launch order.
        local: trainable parameters that no bucket carries.
        buffers: names of the buffers that forward writes and that are kept equal on all ranks.
        combine: for strategies that split the batch in one process, how each output leaf is put
            together again.
        program: digest of the graph that the plan was made for.
        options: the strategy's options, JSON values only.
        prediction: when each bucket was expected to travel, where speeds were known. Plans that decide the
            same are equal whatever they predict.
    """

    strategy: str
    pipeline: str
    model: str
    parameters: tuple[ParameterSpec, ...]
    buckets: tuple[BucketSpec, ...] = ()
    local: tuple[LocalParameter, ...] = ()
    buffers: tuple[str, ...] = ()
    combine: tuple[Combine, ...] = ()
    program: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    prediction: Prediction | None = field(default=None, compare=False)
    version: int = PLAN_VERSION

    @property
    def nbytes(self) -> int:
        """Bytes of gradients that one rank has reduced in one step."""
        return sum(bucket.nbytes for bucket in self.buckets)

    @property
    def sent_nbytes(self) -> int:
        """Bytes that one rank hands to collectives for them."""
        return sum(bucket.sent_nbytes for bucket in self.buckets)

    def bucket_of(self) -> dict[str, int]:
        """Maps each bucketed parameter's name to its bucket's index."""
        return {name: bucket.index for bucket in self.buckets for name in bucket.parameters}

    def to_json(self) -> str:
        """The plan as indented JSON; ``Plan.from_json`` reads it back to an equal plan."""
        return json.dumps(_content(self), indent=2, sort_keys=True) + "\n"

    def digest(self) -> str:
        """SHA-256 (hex) of the plan's content; equal plans have equal digests."""
        canonical = json.dumps(_content(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Reads what ``to_json`` wrote.

        Raises:
            PlanError: the text is no plan, or a plan of another version.
        """
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            where = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise PlanError(
                f"The plan is not JSON ({where}).",
                mend="Give the plan.json that `autopar transform` wrote.",
            ) from None
        return cls.from_values(raw)

    @classmethod
    def from_values(cls, raw: Any) -> Plan:
        """The plan of the JSON values that ``to_json`` writes.

        Raises:
            PlanError: they are no plan, or a plan of another version.
        """
        if not isinstance(raw, dict) or not {"version", "strategy"} <= raw.keys():
            raise PlanError(
                "The file is JSON but no plan: it has no 'version' and 'strategy'.",
                mend="Give the plan.json that `autopar transform` wrote.",
            )
        if raw["version"] != PLAN_VERSION:
            raise PlanError(
                f"The plan has version {raw['version']!r}; this autopar reads version {PLAN_VERSION}.",
                mend="Run `autopar transform` again to make a new plan.",
            )
        try:
            if "buckets" not in raw:
                raise ValueError("it has no buckets")
            plan = read_typed(cls, raw)
            if plan.prediction is not None and len(plan.prediction.buckets) != len(plan.buckets):
                raise ValueError("it predicts another number of buckets than it has")
            return plan
        except (TypeError, ValueError) as error:
            raise PlanError(
                f"The plan is damaged: {error}.", mend="Run `autopar transform` again to make a new plan."
            ) from None

    def check_parameters(self, actual: Sequence[ParameterSpec]) -> None:
        """Compares the plan's parameters with a model's.

        Raises:
            PlanError: naming the first parameter that differs.
        """
        mine = {spec.name: spec for spec in self.parameters}
        theirs = {spec.name: spec for spec in actual}
        mend = "Run `autopar transform` again for this model."
        for name in dict.fromkeys([*mine, *theirs]):
            planned, found = mine.get(name), theirs.get(name)
            if planned is None or found is None:
                where = "the model but not the plan" if planned is None else "the plan but not the model"
                raise PlanError(f"The plan was made for another model: parameter {name!r} is in {where}.", mend=mend)
            if (planned.shape, planned.dtype) != (found.shape, found.dtype):
                raise PlanError(
                    f"The plan was made for another model: parameter {name!r} is planned as "
                    f"{planned.dtype}{list(planned.shape)} and is {found.dtype}{list(found.shape)}.",
                    mend=mend,
                )
        self._check_buckets(mine)

    def _check_buckets(self, parameters: Mapping[str, ParameterSpec]) -> None:
        carried: list[str] = []
        for place, bucket in enumerate(self.buckets):
            specs = [parameters[name] for name in bucket.parameters if name in parameters]
            carried += bucket.parameters
            alike = {spec.key for spec in specs} == {(bucket.dtype, bucket.device, bucket.layout, bucket.route)}
            if (
                bucket.index != place
                or len(specs) < len(bucket.parameters)
                or not alike
                or bucket.nbytes != sum(spec.nbytes for spec in specs)
            ):
                raise PlanError(
                    f"The plan contradicts itself: bucket {place} does not fit its parameters.",
                    mend="Run `autopar transform` again to make a new plan.",
                )
        if len(carried) > len(set(carried)):
            raise PlanError(
                "The plan contradicts itself: two buckets carry the same parameter.",
                mend="Run `autopar transform` again to make a new plan.",
            )


def _content(plan: Plan) -> dict[str, Any]:
    content = dataclasses.asdict(plan)
    for bucket in content["buckets"]:
        if not bucket["compression"]:
            del bucket["compression"], bucket["wire_nbytes"]
    return content
