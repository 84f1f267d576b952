"""Runs a pipeline over a Program: contract first, then each pass, verified and timed."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from torch import fx

from autopar.capture.island_remarks import beneath
from autopar.collector import without_collector
from autopar.errors import AutoparError, PassError, UnknownNameError
from autopar.passes.base import Pass, PassContext, PassResult
from autopar.passes.instruments import Counters, PassRecord, Timing
from autopar.passes.observers import PassObserver, ambient
from autopar.passes.pipeline import check_contract
from autopar.passes.verifier import verify
from autopar.program import Program, annotate, info

__all__ = ["run_pipeline"]


@without_collector()
def run_pipeline(
    program: Program,
    pipeline: Sequence[Pass],
    ctx: PassContext,
    *,
    stop_after: str | None = None,
    observers: Sequence[PassObserver] = (),
) -> tuple[Program, list[PassRecord]]:
    """Runs the passes in order and verifies the program after each one.

    Args:
        program: what to rewrite; passes may rewrite it in place.
        pipeline: the passes, see ``autopar.passes.pipeline.build``.
        ctx: what the passes may know.
        stop_after: name of the pass after which to stop.
        observers: told of every pass, as are those of ``autopar.observing`` blocks around.

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
    timing, counters = Timing(), Counters()
    told = [*ambient(), *observers, counters, timing]  # timing last: what the others do is not counted
    changed: list[bool] = []
    for one in pipeline:
        for observer in told:
            observer.before_pass(one, program, ctx)
        graph = program.graph
        known = set(graph.nodes)
        with _telling(told, one):
            result = _run(one, program, ctx)
        program = _taken_over(one, result, graph, known)
        with _telling(told, one):
            program = _over_islands(one, program, ctx)
        for observer in reversed(told):
            observer.after_pass(one, program, result)
        with _telling(told, one):
            verify(program, after=one.name)
        for observer in told:
            observer.verified(one, program)
        changed.append(result.changed)
        if one.name == stop_after:
            break
    _recompile(program)
    rows = zip(names, timing.seconds, changed, counters.sizes, counters.counted, strict=False)
    records = [
        PassRecord(name=name, seconds=seconds, changed=change, nodes_before=before, nodes_after=after, counters=counted)
        for name, seconds, change, (before, after), counted in rows
    ]
    return program, records


@contextmanager
def _telling(observers: Sequence[PassObserver], one: Pass) -> Iterator[None]:
    """Lets the observers know of what fails within."""
    try:
        yield
    except Exception as error:
        for observer in observers:
            observer.failed(one, error)
        raise


def _run(one: Pass, program: Program, ctx: PassContext) -> PassResult:
    try:
        result = one.run(program, ctx)
    except AutoparError:
        raise
    except Exception as error:
        raise PassError(
            f"Pass {one.name!r} failed on {program.name}: {type(error).__name__}: {error}.",
            mend="Run with --debug for the traceback, or leave the pass out with --disable-pass.",
        ) from error
    if not isinstance(result, PassResult):
        raise PassError(
            f"Pass {one.name!r} returned a {type(result).__name__} instead of a PassResult.",
            mend="Let its run() end in `return PassResult(program, changed=...)`.",
        )
    return result


def _taken_over(one: Pass, result: PassResult, graph: fx.Graph, known: Collection[fx.Node]) -> Program:
    """The program of a result, with what the pass established, said and made noted in it.

    Of a graph that is a new one, nodes are those of ``graph`` where they are called alike.
    """
    program = dataclasses.replace(
        result.program,
        provides=result.program.provides | one.provides,
        remarks=[*result.program.remarks, *result.remarks],
    )
    names = set() if program.graph is graph else {node.name for node in known}
    for node in program.graph.nodes:
        if node not in known and node.name not in names and info(node).created_by == "capture":
            annotate(node, created_by=one.name)
    return program


def _over_islands(one: Pass, program: Program, ctx: PassContext) -> Program:
    """The program with the pass applied to its islands, where it is a pass for them, and what it could not do there."""
    if not program.islands or not getattr(one, "on_islands", False):
        return program
    said = {path: len(island.program.remarks) for path, island in program.islands.items()}

    def run(island: Program) -> Program:
        graph, known = island.graph, set(island.graph.nodes)
        return _over_islands(one, _taken_over(one, _run(one, island, ctx), graph, known), ctx)

    program = program.with_islands(run)
    for path, island in program.islands.items():
        program.remarks.extend(beneath(path, island.program.remarks[said[path] :]))
    return program


def _recompile(program: Program) -> None:
    """Says that what the graphs had been compiled to, if they had, holds no more."""
    program.graph_module.recompile()
    for island in program.islands.values():
        _recompile(island.program)
