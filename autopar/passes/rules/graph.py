"""The graph is one that runs, on the caller's inputs."""

from __future__ import annotations

from collections.abc import Iterator

from autopar.program import Program

__all__ = ["inputs_kept", "one_output", "well_formed"]


def well_formed(program: Program) -> Iterator[str]:
    """fx's own lint: nodes in order, names unique, targets there."""
    try:
        program.graph.lint()
    except RuntimeError as error:
        yield str(error).splitlines()[0].rstrip(".")


def inputs_kept(program: Program) -> Iterator[str]:
    """The inputs are those that the caller will hand over, lifted ones first."""
    names = [node.name for node in program.find("placeholder")]
    lifted, inputs = names[: len(program.lifted)], names[len(program.lifted) :]
    if len(lifted) != len(program.lifted) or inputs != list(program.signature.inputs):
        expected = [*(f"{name} (lifted)" for name in program.lifted), *program.signature.inputs]
        yield f"its inputs are {', '.join(names) or 'none'} and should be {', '.join(expected) or 'none'}"


def one_output(program: Program) -> Iterator[str]:
    """There is something to return, once."""
    count = sum(1 for _ in program.find("output"))
    if count != 1:
        yield f"it has {count} output nodes"
