"""``autopar transform`` says what passes found out, and what is wrong with a model before it fails on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autopar.passes.base import PassContext, PassResult
from autopar.passes.registry import passes, register_pass
from autopar.program import Program, Remark
from tests.cli.conftest import MODEL, Command

USUAL = ("--input", "4x2x10")


def test_findings_of_a_pass_are_shown(command: Command, model_file: Path) -> None:
    """An analysis pass of somebody's is of use from the command line, too."""

    @register_pass
    class Greet:
        """Finds out nothing."""

        name = "greet"
        requires: frozenset[str] = frozenset()
        provides: frozenset[str] = frozenset()

        def run(self, program: Program, ctx: PassContext) -> PassResult:
            """Says so."""
            remark = Remark(kind="analysis", stage=self.name, message="Hello from a pass.")
            return PassResult(program, changed=False, remarks=(remark,))

    text = "inline-modules,shapes,greet,backward-order,bucket,ddp-sync,lift-parameters"
    try:
        ended = command("transform", str(model_file), *USUAL, "--passes", text)
        assert "- greet: Hello from a pass." in ended.out
        ended = command("transform", str(model_file), *USUAL, "--passes", text, "--json")
        assert "Hello from a pass." in [one["message"] for one in ended.json["found"]]
    finally:
        passes.remove("greet")


def test_inputs_and_outputs_have_no_source_line(command: Command, model_file: Path) -> None:
    """The line on the stack when they are made is that of whoever called the compiler."""
    assert command("transform", str(model_file), *USUAL).code == 0
    document = json.loads(Path("out/graph.json").read_text())
    for graph in ("before", "after"):
        found = {node["source"].partition(":")[0] for node in document[graph]["nodes"] if node["source"]}
        assert found == {"model.py"}
    assert "click" not in Path("out/graph_after.dot").read_text()


@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        ("nn.Linear(8, 1)", "nn.Linear(8, 1, device='meta')", "on the meta device, which hold no values. Materialise"),
        ("nn.Linear(10, 16)", "nn.LazyLinear(16)", "lazy parameters without a shape: fc1.weight"),
    ],
)
def test_a_model_without_values_is_refused_as_parallelize_does(
    command: Command, model_file: Path, old: str, new: str, fact: str
) -> None:
    """Other inputs would not help, so nothing is said of --input."""
    model_file.write_text(MODEL.replace(old, new))
    ended = command("transform", str(model_file), *USUAL)
    assert ended.code == 3
    assert fact in ended.err
    assert "--input" not in ended.err
