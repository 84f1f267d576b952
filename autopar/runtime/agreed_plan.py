"""One plan for all ranks: they compare what they compiled and follow the first rank that has a plan."""

from __future__ import annotations

from typing import Any

from autopar.compilation import Compilation
from autopar.errors import RankMismatchError
from autopar.partitioner.plan import Plan
from autopar.runtime.agreement import exchange, text_from_rank
from autopar.runtime.group import Group

__all__ = ["agree_on_plan"]


def agree_on_plan(group: Group, mine: Compilation | None, failure: Exception | None, *, dynamic: bool) -> Plan:
    """The plan that all ranks follow; called on all of them.

    Args:
        group: the ranks.
        mine: what this rank compiled; None where it failed, or has no batch to compile with.
        failure: why it failed.
        dynamic: graphs may differ from rank to rank.

    Raises:
        Exception: ``failure``, on the rank that has it.
        RankMismatchError: another rank failed, or the ranks have different graphs.
    """
    reports = exchange(group, _report(mine, failure))
    if failure is not None:
        raise failure
    for rank, report in enumerate(reports):
        if report["error"] is not None:
            raise RankMismatchError(
                f"Rank {rank} could not compile the model: {report['error']}",
                mend="Mend that rank; the others stopped with it.",
            )
    compiled = [rank for rank, report in enumerate(reports) if report["program"] is not None]
    first = compiled[0]
    # Ranks with other sizes or values in their batches may rightly have other graphs: the plan is one.
    if not dynamic and not any(report["guarded"] for report in reports):
        program = reports[first]["program"]
        odd = next((rank for rank in compiled if reports[rank]["program"] != program), None)
        if odd is not None:
            codes = exchange(group, [] if mine is None else mine.before.code.strip().splitlines())
            raise RankMismatchError(
                _first_difference(codes[first], codes[odd], ranks=(first, odd)),
                mend="Let every rank take the same branches in forward, and give every rank inputs of one structure.",
            )
    # A broadcast, because plans of large models are long and all ranks mostly have the same one.
    return Plan.from_json(text_from_rank(group, "?" if mine is None else mine.plan.to_json(), rank=first))


def _report(mine: Compilation | None, failure: Exception | None) -> dict[str, Any]:
    return {
        "error": None if failure is None else f"{type(failure).__name__}: {failure}",
        "program": None if mine is None else mine.before.digest(),
        "guarded": mine is not None and not mine.before.guards.none,
    }


def _first_difference(one: list[str], other: list[str], *, ranks: tuple[int, int]) -> str:
    for index in range(max(len(one), len(other))):
        left = one[index].strip() if index < len(one) else "nothing"
        right = other[index].strip() if index < len(other) else "nothing"
        if left != right:
            return (
                f"The ranks captured different graphs: line {index + 1} is {left!r} on rank {ranks[0]}, "
                f"{right!r} on rank {ranks[1]}."
            )
    return f"The ranks captured different graphs (rank {ranks[0]} and rank {ranks[1]})."
