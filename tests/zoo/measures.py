"""How much of a model the compiler sees, in figures, computed from a Program."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from autopar.islands import eager_parameters
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
        opaque_bytes: bytes of the trainable parameters that eager code owns, wholly or beside others.
        opaque: the opaque calls that own such parameters, with the bytes of these, largest first; a
            module called twice stands once.
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

    A trainable parameter is *at operation level* when nothing but operations of the graph, or of an
    island's, uses it: no eager code owns it. A parameter that is tied to one in eager code is not.

    Args:
        program: after ``inline-modules``, which opens what is pure.
    """
    trainable = {p: p.numel() * p.element_size() for p in program.trainable().values()}
    hidden = eager_parameters(program)
    calls = {call.path: call for call in _calls(program, hidden)}
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


def _calls(program: Program, hidden: set[nn.Parameter], around: str = "") -> Iterator[Opaque]:
    """The opaque calls that own parameters which no operation reads, those inside of islands as well."""
    for node in program.graph.nodes:
        if info(node).opaque:
            path = info(node).module_path
            module = program.model.get_submodule(path)
            inside = {p for one in program.islands.values() for p in one.program.model.parameters()}
            owned = (hidden & set(module.parameters())) - inside
            if owned:
                full = ".".join(filter(None, (around, path)))
                yield Opaque(full, type(module).__name__, sum(p.numel() * p.element_size() for p in owned))
    for path, island in program.islands.items():
        yield from _calls(island.program, hidden, ".".join(filter(None, (around, path))))


def _reason(message: str) -> str:
    """What a remark says without the name of the module that it says it of, and without its islands."""
    after = re.sub(r"; \d+ islands? inside holds? \S+ of its bytes", "", message.split(": ", 1)[-1])
    return re.sub(r"writes to '[^']*'", "writes to a buffer", after).rstrip(".")
