"""Programs between passes as files: each runs by itself and agrees with the user's model; a failed pass runs again."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from autopar.compilation import compile_program
from autopar.emit import Source, emit_repro, emit_stage
from autopar.emit.script import load
from autopar.errors import PassError
from autopar.passes.base import Pass, PassContext
from autopar.passes.observers import PassObserver
from autopar.passes.plugin_files import PLUGINS
from autopar.passes.registry import passes
from autopar.program import Program
from autopar.strategies import DDP, DataParallel

MODEL = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8)
        self.last = nn.Linear(8, 2)

    def forward(self, x, *, scale=2.0):
        x = nn.functional.dropout(torch.relu(self.norm(self.first(x))), 0.5, self.training)
        return {"out": self.last(x) * scale}
"""

PLUGIN = """
import autopar
import torch

@autopar.register_pass
def change_result(gm):
    (scaled,) = gm.graph.find_nodes(op="call_function", target=__import__("operator").mul)
    scaled.args = (scaled.args[0], 3.0)

@autopar.register_pass
def stumble(gm, over: str = "nothing"):
    raise ZeroDivisionError(f"over {over}")
"""


class Keeps(PassObserver):
    """Prints the program before the first pass and after each."""

    def __init__(self, source: Source, folder: Path) -> None:
        self.source, self.folder, self.files = source, folder, list[Path]()

    def before_pass(self, one: Pass, program: Program, ctx: PassContext) -> None:
        """The captured one."""
        self.given, self.ctx = program.snapshot(), ctx
        if not self.files:
            self.keep(program, "captured")

    def verified(self, one: Pass, program: Program) -> None:
        """After a pass."""
        self.keep(program, one.name)

    def keep(self, program: Program, name: str) -> None:
        """Writes the file."""
        path = self.folder / f"{len(self.files)}-{name}.py"
        path.write_text(
            emit_stage(program, source=self.source, folder=self.folder, title=f"after {name}", file_name=path.name)
        )
        self.files.append(path)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    """The model's file, and a plug-in with two passes."""
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "stage_passes.py").write_text(PLUGIN)
    monkeypatch.setenv(PLUGINS, str(tmp_path / "stage_passes.py"))
    yield Source(tmp_path / "model.py", "Net")
    for name in ("change-result", "stumble"):
        passes.remove(name)
    sys.modules.pop("autopar_plugin_stage_passes", None)


def compiled(source: Source, folder: Path, strategy: DDP | DataParallel, pipeline: str = "") -> Keeps:
    """What was kept of a compilation."""
    keeps = Keeps(source, folder)
    text = pipeline or strategy.pipeline()
    model = load(source.file, source.name)
    compile_program(model, (torch.randn(6, 4),), {}, strategy, pipeline=text, observers=[keeps])
    return keeps


def test_every_stage_runs_and_agrees(source: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With dropout, batch statistics, keyword arguments; parameters read by name and as arguments."""
    keeps = compiled(source, tmp_path, DDP(bucket_cap_mb=0))
    assert [path.stem for path in keeps.files][::6] == ["0-captured", "6-lift-parameters"]
    for path in keeps.files:
        runpy.run_path(str(path), run_name="__main__")
        assert capsys.readouterr().out == "1 tensor came out, the same as the model's own, bit for bit\n", path
    assert "    lifted=(" in keeps.files[-1].read_text()


def test_stage_that_computes_something_else_says_so(source: Source, tmp_path: Path) -> None:
    """A pass that changes numbers is found by running the file after it."""
    keeps = compiled(source, tmp_path, DDP(), f"change-result,{DDP().pipeline()}")
    runpy.run_path(str(keeps.files[0]), run_name="__main__")
    with pytest.raises(SystemExit, match="differs from that of the model's own"):
        runpy.run_path(str(keeps.files[1]), run_name="__main__")


def test_stage_that_python_cannot_express_is_there_to_read(source: Source, tmp_path: Path) -> None:
    """A call of a function that has no name."""
    model = load(source.file, source.name)
    program = compile_program(model, (torch.randn(6, 4),), {}, DDP()).program
    (product,) = (node for node in program.graph.nodes if node.name.startswith("mul"))
    product.target = lambda one, other: one * other
    text = emit_stage(program, source=source, folder=tmp_path, title="now", file_name="now.py")
    assert text.startswith('"""Net, now.\n\nFor reading only: The graph calls ')
    assert "def forward(self" in text
    compile(text, "now.py", "exec")


def test_repro_shows_the_failure_again(source: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the model's file, through the passes before, to the same error; a later change of the model is noticed."""
    keeps = Keeps(source, tmp_path)
    model, strategy = load(source.file, source.name), DDP(bucket_cap_mb=1)
    pipeline = strategy.pipeline().replace("ddp-sync,", "ddp-sync,stumble{over='a \"stone\"'},")
    with pytest.raises(PassError) as failure:
        compile_program(model, (torch.randn(6, 4),), {}, strategy, pipeline=pipeline, observers=[keeps])
    text = emit_repro(keeps.given, keeps.ctx, passed=5, error=failure.value, source=source, folder=tmp_path)
    path = tmp_path / "repro.py"
    path.write_text(text)
    assert f"torch {torch.__version__}" in text
    assert "#     linear = torch._C._nn.linear" in text
    with pytest.raises(PassError, match='ZeroDivisionError: over a "stone"'):
        runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.splitlines()[-2:] == ["pass ddp-sync", "pass stumble"]
    path.write_text(re.sub(r",stumble\{.*?\}", "", text))
    with pytest.raises(SystemExit, match="no pass failed"):
        runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.endswith("pass ddp-sync (on another graph than then)\n")


def test_result_of_replicas(source: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A replicated program prints and runs, too; parts of a batch have batch statistics of their own."""
    source.file.write_text(MODEL.replace("nn.BatchNorm1d(8)", "nn.LayerNorm(8)").replace("0.5", "0.0"))
    keeps = compiled(source, tmp_path, DataParallel(replicas=2))
    runpy.run_path(str(keeps.files[-1]), run_name="__main__")
    assert "the model's own" in capsys.readouterr().out
