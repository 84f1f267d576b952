"""How much of a model the compiler sees, in figures, computed from a Program."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from torch import nn

from autopar.program import Program, info

__all__ = ["Measures", "Opaque", "measure"]


@dataclass(frozen=True, slots=True)
class Opaque:
    """A module that the graph calls whole: its path (the root's is empty), its class, bytes of its parameters."""

    path: str
    kind: str
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """The figures of one program.

    Attributes:
        front_end: how it was captured.
        parameters: number of elements of the trainable parameters, each parameter counted once.
        parameter_bytes: their bytes.
        opaque_bytes: bytes of the trainable parameters that an opaque call owns, wholly or beside others.
        opaque: the opaque calls that own parameters, largest first; a module called twice stands once.
        remarks: why something was missed, with the number of times, most frequent first.
    """

    front_end: str
    parameters: int
    parameter_bytes: int
    opaque_bytes: int
    opaque: tuple[Opaque, ...]
    remarks: dict[str, int]

    @property
    def operation_level(self) -> float:
        """Share of the parameter bytes that only operations in the graph read, from 0 to 1."""
        return 1.0 - self.opaque_bytes / self.parameter_bytes if self.parameter_bytes else 1.0

    def as_data(self) -> dict[str, Any]:
        """The same as plain data, for JSON."""
        return {**dataclasses.asdict(self), "operation_level": self.operation_level}


def measure(program: Program) -> Measures:
    """The figures of a program.

    A trainable parameter is *at operation level* when nothing but operations of the graph uses it:
    no opaque call owns it. A parameter that is tied to one inside an opaque module is not.

    Args:
        program: after ``inline-modules``, which opens what is pure.
    """
    trainable = {p: p.numel() * p.element_size() for p in program.trainable().values()}
    hidden: set[nn.Parameter] = set()
    calls: dict[str, Opaque] = {}
    for node in program.graph.nodes:
        if not info(node).opaque:
            continue
        path = info(node).module_path
        module = program.model.get_submodule(path)
        owned = {p for p in module.parameters() if p in trainable}
        hidden |= owned
        if owned:
            calls[path] = Opaque(path, type(module).__name__, sum(trainable[p] for p in owned))
    reasons: dict[str, int] = {}
    for remark in program.remarks:
        if remark.kind == "missed":
            reason = _reason(remark.message)
            reasons[reason] = reasons.get(reason, 0) + 1
    return Measures(
        front_end=program.front_end,
        parameters=sum(p.numel() for p in trainable),
        parameter_bytes=sum(trainable.values()),
        opaque_bytes=sum(trainable[p] for p in hidden),
        opaque=tuple(sorted(calls.values(), key=lambda call: (-call.nbytes, call.path))),
        remarks=dict(sorted(reasons.items(), key=lambda item: -item[1])),
    )


def _reason(message: str) -> str:
    """What a remark says without the name of the module that it says it of."""
    after = message.split(": ", 1)[-1]
    return re.sub(r"writes to '[^']*'", "writes to a buffer", after).rstrip(".")
