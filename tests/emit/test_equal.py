"""A printed forward computes bit for bit what the model computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from autopar import compat
from autopar.emit import emit_forward
from autopar.passes.base import Pass
from autopar.passes.observers import PassObserver
from autopar.program import Program
from autopar.regions import outlined
from autopar.strategies import DataParallel
from tests.emit import models
from tests.emit.compiled import assert_equal, compiled, printed, step

FILE = Path(models.__file__)


@pytest.mark.parametrize("case", models.CASES)
def test_printed_forward_equals_eager(case: str) -> None:
    """Outputs and their structure, gradients, and buffers."""
    torch.manual_seed(0)
    cls, args, kwargs = models.CASES[case]
    model = cls()
    _, namespace = printed(compiled(model, args, kwargs), FILE, cls.__name__)
    assert_equal(step(model, namespace["forward"], args, kwargs), step(model, cls.forward, args, kwargs))
    results = [forward(model, *args, **kwargs) for forward in (namespace["forward"], cls.forward)]
    spec, expected = (compat.tree_flatten(result)[1] for result in results)
    assert spec == expected or case == "calls"  # named tuples of a file that was loaded twice


@pytest.mark.parametrize("front_end", ["export", "dynamo"])
def test_printed_operators_equal_eager(front_end: str) -> None:
    """The operators of a graph of torch.export print, too: conditions on sizes, buckets, buffers and dropout."""
    torch.manual_seed(0)
    model, args = models.Trained(), (models.x(6, 4),)
    compilation = compiled(model, args, capture=front_end)
    assert compilation.program.front_end == front_end
    text, namespace = printed(compilation, FILE, "Trained")
    assert "ops.sync_gradients(" in text
    assert "torch.ops.aten.batch_norm.default(" in text
    assert_equal(step(model, namespace["forward"], args, {}), step(model, models.Trained.forward, args, {}))


@pytest.mark.parametrize("case", models.CASES)
def test_printed_file_names_no_temporary_none(case: str) -> None:
    """None of fx's own `x = None` lines, and no line over the limit but for names that are long themselves."""
    cls, args, kwargs = models.CASES[case]
    text, _ = printed(compiled(cls(), args, kwargs), FILE, cls.__name__)
    body = text.partition("def forward(")[2].partition("def build(")[0]
    assert "= None\n" not in body.replace("=None", "")
    assert all(len(line) <= 100 for line in body.splitlines())


def test_printed_replicas_recompute_as_the_program_does() -> None:
    """Checkpoints are functions that the printed replica calls."""
    torch.manual_seed(0)
    model, strategy = models.Checkpointed(), DataParallel(replicas=2, gather="torch")
    compilation = compiled(model, (models.x(6, 4),), strategy=strategy)
    text, namespace = printed(compilation, FILE, "Checkpointed")
    assert text.index("def checkpoint_1(") < text.index("def replica(") < text.index("def forward(")

    def in_memory(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        program = compiled(model, (x,), strategy=strategy).program
        return program.signature.unflatten(outlined(program).graph_module(x))

    inputs = (models.x(6, 4),)
    assert_equal(step(model, namespace["forward"], inputs, {}), step(model, in_memory, inputs, {}))


def test_forward_can_be_printed_at_every_stage() -> None:
    """After each pass there is source, and it compiles."""
    stages: list[str] = []

    class Prints(PassObserver):
        def verified(self, one: Pass, program: Program) -> None:
            stages.append(emit_forward(program))

    model = models.Nested()
    compiled(model, (models.x(3, 2, 5, 5),), observers=[Prints()])
    assert len(stages) == 6
    assert "self.blocks[0](" in emit_forward(compiled(model, (models.x(3, 2, 5, 5),)).before)
    assert "self.blocks[0].weight" in stages[0]
    assert "ops.sync_gradients(" in stages[-2]
    assert "blocks_0_weight_," in stages[-1]
    for stage in stages:
        compile(stage, "stage.py", "exec")
