"""The whole printed file: clean source that imports, runs and trains."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from autopar.emit import Source, emit_python
from autopar.partitioner.plan import Plan
from autopar.strategies import DataParallel, ZeRO1
from tests.emit import models
from tests.emit.compiled import SMALL, compiled, printed

FILE = Path(models.__file__)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "AUTOPAR_QUIET": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every model's printed file in a folder beside a copy of the models."""
    home = tmp_path_factory.mktemp("emit")
    (home / "models.py").write_text(FILE.read_text())
    out = home / "out"
    out.mkdir()
    for case, (cls, args, kwargs) in models.CASES.items():
        compilation = compiled(cls(), args, kwargs)
        source = Source(home / "models.py", cls.__name__)
        text = emit_python(compilation, source=source, folder=out, plan_file=f"{case}.json")
        (out / f"{case.replace('-', '_')}.py").write_text(text)
        (out / f"{case}.json").write_text(compilation.plan.to_json())
    for cls, inputs in ((models.Nested, models.x(4, 2, 5, 5)), (models.Checkpointed, models.x(6, 4))):
        replicated = compiled(cls(), (inputs,), strategy=DataParallel(replicas=2, gather="torch"))
        text = emit_python(replicated, source=Source(home / "models.py", cls.__name__), folder=out, plan_file=None)
        (out / f"replicated_{cls.__name__.lower()}.py").write_text(text)
    return out


def test_files_pass_the_linter_and_the_formatter(folder: Path) -> None:
    """With rules that people use, at a line length of 100."""
    ruff = [sys.executable, "-m", "ruff"]
    common = ["--isolated", "--line-length", "100", "--target-version", "py310", str(folder)]
    rules = "E,F,W,I,UP,B,C4,SIM,RET,PIE"
    checked = subprocess.run([*ruff, "check", "--select", rules, *common], cwd=folder, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    formatted = subprocess.run([*ruff, "format", "--diff", *common], cwd=folder, capture_output=True, text=True)
    assert formatted.returncode == 0, formatted.stdout


def test_paths_are_relative_to_the_printed_file(folder: Path) -> None:
    """So that the two can move together."""
    assert 'MODEL_FILE = HERE / "../models.py"' in (folder / "stack.py").read_text()


def test_plan_can_be_embedded(tmp_path: Path) -> None:
    """It is equal to the compilation's, also with quotes in a parameter's name."""
    model = models.UnusualNames()
    model.weights['""" + "\\'] = torch.ones(4)
    compilation = compiled(model, (models.x(),))
    _, namespace = printed(compilation, FILE, "UnusualNames")
    assert namespace["PLAN"] == Plan.from_json(compilation.plan.to_json())


def test_sample_inputs_are_like_the_example(folder: Path) -> None:
    """Shapes, dtypes, structure, and integers within the example's range."""
    for case, (cls, args, kwargs) in models.CASES.items():
        _, namespace = printed(compiled(cls(), args, kwargs), FILE, cls.__name__)
        made, named = namespace["sample_inputs"]()
        cls()(*made, **named)
        if case == "tied":
            assert made[0].dtype is torch.int64
            assert made[0].max() < 7


def test_a_moved_model_is_said(folder: Path, tmp_path: Path) -> None:
    """Not a traceback about a file somewhere."""
    (tmp_path / "stack.py").write_text((folder / "stack.py").read_text())
    (tmp_path / "stack.json").write_text((folder / "stack.json").read_text())
    run = subprocess.run(
        [sys.executable, "stack.py"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60
    )
    assert run.returncode != 0
    assert "is not there" in run.stderr
    assert "change MODEL_FILE in the printed file" in run.stderr


@pytest.mark.parametrize("case", ["stack", "opaque_part", "replicated_nested", "replicated_checkpointed"])
def test_trains_in_one_process(folder: Path, case: str) -> None:
    """Plain ``python transformed.py``: five lines with step, loss and step time."""
    run = subprocess.run(
        [sys.executable, f"{case}.py"], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.splitlines()) == 5
    assert all(line.split()[2] == "loss" and line.endswith(" ms") for line in run.stdout.splitlines())


def test_trains_under_torchrun(folder: Path) -> None:
    """Two ranks; rank 0 alone speaks."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "opaque_part.py"]
    run = subprocess.run(launch, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert [line.split()[:2] for line in run.stdout.splitlines()] == [["step", str(i)] for i in range(5)]


def test_an_import_runs_nothing(folder: Path) -> None:
    """Neither the model nor a process group is made."""
    code = "import stack, torch.distributed as d; assert not d.is_initialized(); print(stack.STEPS)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stdout) == (0, "5\n"), run.stderr


def test_the_strategy_is_printed_with_its_options() -> None:
    """As they are in the plan."""
    text, _ = printed(compiled(models.Stack(), (models.x(),), strategy=SMALL), FILE, "Stack")
    assert '"bucket_cap_mb": 0.0001' in text


def test_a_sharded_optimizer_is_printed() -> None:
    """The file's own training does as its strategy says."""
    text, _ = printed(compiled(models.Stack(), (models.x(),), strategy=ZeRO1()), FILE, "Stack")
    assert "    shard_optimizer(model, optimizer)" in text
