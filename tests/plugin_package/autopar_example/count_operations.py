"""An analysis: which operations a program consists of, and how many of each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from autopar.passes.base import PassContext, PassResult
from autopar.program import Program, Remark


@dataclass(frozen=True, slots=True)
class CountOperations:
    """Says how often the most frequent operations occur.

    Args:
        most: how many of them to name.
    """

    most: int = 3
    name: ClassVar[str] = "count-operations"
    requires: ClassVar[frozenset[str]] = frozenset({"inlined"})
    provides: ClassVar[frozenset[str]] = frozenset()

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Adds one remark; the graph stays as it is."""
        counts = Counter(getattr(node.target, "__name__", "?") for node in program.find("call_function"))
        named = ", ".join(f"{count} {name}" for name, count in counts.most_common(self.most))
        remark = Remark(kind="analysis", stage=self.name, message=f"The most frequent operations: {named}.")
        return PassResult(program, changed=False, remarks=(remark,))
