"""What a verification found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autopar.errors import CheckFailedError
from autopar.verification.comparison import Difference, Tally

__all__ = ["Check", "Report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the table: everything of one kind, with one yardstick.

    Attributes:
        kind: such as ``"gradients"``.
        against: what it was compared with.
        rule: how close it must be, in words.
        tensors, values: compared; a tensor counts once for each rank and step.
        largest: the largest difference.
        allowed: what was right at that place; 0 where bits must be equal.
        place: where that was.
        ok: whether all of it was right.
    """

    kind: str
    against: str
    rule: str
    tensors: int
    values: int
    largest: float
    allowed: float
    place: str
    ok: bool

    @classmethod
    def of(cls, tally: Tally) -> Check:
        """What a tally has counted."""
        names = ("kind", "against", "rule", "tensors", "values", "largest", "allowed", "place", "ok")
        return cls(**{name: getattr(tally, name) for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a verification found; true where the two trainings are the same.

    Attributes:
        model, strategy, optimizer: what was verified.
        program: path of the printed file that stood in place of the compiled program; "" without.
        parts: ranks or replicas.
        steps: training steps that were compared.
        samples: in a whole batch.
        checks: the lines of the table.
        difference: the first one; None where there is none.
        notes: sentences about what could not be compared, and how far a plain training came away.
    """

    model: str
    strategy: str
    optimizer: str
    parts: int
    steps: int
    samples: int
    checks: Sequence[Check]
    difference: Difference | None = None
    notes: Sequence[str] = ()
    program: str = ""

    @property
    def ok(self) -> bool:
        """Whether the two trainings are the same."""
        return self.difference is None

    def __bool__(self) -> bool:
        return self.ok

    def require(self) -> Report:
        """The report itself.

        Raises:
            CheckFailedError: the trainings differ; the text says where.
        """
        if self.difference is not None:
            raise CheckFailedError(
                f"{self.model} does not train the same with {self.strategy}.",
                why=str(self.difference),
                mend="Leave out the passes that you added, or report it.",
            )
        return self

    def to_json(self) -> dict[str, Any]:
        """JSON values only; an infinite difference is null."""
        found: dict[str, Any] = _finite({"version": 1, "ok": self.ok, **asdict(self)})
        return found


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
