"""Checks a Program after every pass: a broken graph is named at the pass that broke it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from autopar.errors import InvalidProgramError
from autopar.passes.rules.collectives import every_rank_takes_part, synced_as_planned, waited_for
from autopar.passes.rules.graph import inputs_kept, one_output, well_formed
from autopar.passes.rules.plan import annotated_buckets, one_kind, planned_once, ready_order_kept
from autopar.passes.rules.promises import promises_kept
from autopar.program import Program

__all__ = ["RULES", "verify"]

Rule = Callable[[Program], Iterator[str]]


def verify(program: Program, *, after: str) -> None:
    """Applies every rule, to the islands as well.

    Raises:
        InvalidProgramError: naming the pass, the rule and every offending node or parameter.
    """
    for name, rule in RULES.items():
        broken = list(rule(program))
        if broken:
            raise InvalidProgramError(
                f"After pass {after!r} the program of {program.name} breaks the rule {name!r}: {'; '.join(broken)}.",
                mend=f"This is a defect of the pass {after!r}: leave it out with --passes, and report it.",
            )
    for island in program.islands.values():
        verify(island.program, after=after)


RULES: dict[str, Rule] = {
    "the graph is well formed": well_formed,
    "the inputs match the signature": inputs_kept,
    "there is one output": one_output,
    "what passes provide is there": promises_kept,
    "every trainable parameter is planned once": planned_once,
    "a bucket holds parameters of one kind": one_kind,
    "buckets are launched in ready order": ready_order_kept,
    "every bucket is synchronised as planned": synced_as_planned,
    "every rank takes part in every collective": every_rank_takes_part,
    "nothing is used before its wait": waited_for,
    "annotations name planned buckets": annotated_buckets,
}
