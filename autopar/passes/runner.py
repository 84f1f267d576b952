"""Runs a pipeline over a Program: contract first, then each pass, verified and timed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autopar.errors import AutoparError, PassError, UnknownNameError
from autopar.passes.base import Pass, PassContext, PassResult
from autopar.passes.pipeline import check_contract
from autopar.passes.verifier import verify
from autopar.program import Program, info

__all__ = ["PassRecord", "run_pipeline"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRecord:
    """What one pass did: for tables, timings and diffs.

    Attributes:
        name: the pass.
        seconds: wall time, verification not counted.
        changed: whether it said that it changed the program.
        nodes_before, nodes_after: size of the graph, in nodes.
    """

    name: str
    seconds: float
    changed: bool
    nodes_before: int
    nodes_after: int


def run_pipeline(
    program: Program,
    pipeline: Sequence[Pass],
    ctx: PassContext,
    *,
    stop_after: str | None = None,
    after: Callable[[Pass, Program], None] | None = None,
) -> tuple[Program, list[PassRecord]]:
    """Runs the passes in order and verifies the program after each one.

    Args:
        program: what to rewrite; passes may rewrite it in place.
        pipeline: the passes, see ``autopar.passes.pipeline.build``.
        ctx: what the passes may know.
        stop_after: name of the pass after which to stop.
        after: called with the pass and the program after each pass (printing, drawing, counting).

    Returns:
        The final program and one record a pass.

    Raises:
        PipelineError: a pass lacks what it requires; nothing has run.
        PassError: a pass failed, or left a broken program (``InvalidProgramError``).
    """
    names = [one.name for one in pipeline]
    if stop_after is not None and stop_after not in names:
        raise UnknownNameError("pass of this pipeline", stop_after, names)
    check_contract(pipeline, program.provides)
    records: list[PassRecord] = []
    for one in pipeline:
        before = len(program.graph.nodes)
        known = set(program.graph.nodes)
        started = time.perf_counter()
        try:
            result = one.run(program, ctx)
        except AutoparError:
            raise
        except Exception as error:
            raise PassError(
                f"Pass {one.name!r} failed on {program.name}: {type(error).__name__}: {error}.",
                mend="Run with --debug for the traceback, or leave the pass out with --passes.",
            ) from error
        seconds = time.perf_counter() - started
        if not isinstance(result, PassResult):
            raise PassError(
                f"Pass {one.name!r} returned a {type(result).__name__} instead of a PassResult.",
                mend="Let its run() end in `return PassResult(program, changed=...)`.",
            )
        program = dataclasses.replace(
            result.program,
            provides=result.program.provides | one.provides,
            remarks=[*result.program.remarks, *result.remarks],
        )
        for node in program.graph.nodes:
            if node not in known and info(node).created_by == "capture":
                node.meta["autopar"] = dataclasses.replace(info(node), created_by=one.name)
        verify(program, after=one.name)
        records.append(
            PassRecord(
                name=one.name,
                seconds=seconds,
                changed=result.changed,
                nodes_before=before,
                nodes_after=len(program.graph.nodes),
            )
        )
        if after is not None:
            after(one, program)
        if one.name == stop_after:
            break
    program.graph_module.recompile()  # once: passes rewrite the graph, nobody runs its code between them
    return program, records
