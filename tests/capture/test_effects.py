"""What a forward does to the world outside, and what its first run sets up."""

# ruff: noqa: D102 - a forward is what its class says

from __future__ import annotations

import importlib
import io
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any, TextIO

import numpy
import pytest
import torch
from torch import nn

import autopar
from autopar.capture.ladder import capture
from tests.capture import counted
from tests.capture.models import Part, Trunk, opaque_paths, x


def test_printing_stays_one_line_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    """The module that prints runs as it is; capture itself prints nothing."""

    def says(self: Part, x: torch.Tensor) -> torch.Tensor:
        print("rows:", x.shape[0])
        return self.fc(x)

    model = autopar.parallelize(Trunk(Part(says)), "ddp")
    for _ in range(3):
        model(x())
    assert capsys.readouterr().out == "rows: 3\n" * 3


def test_writing_a_file_keeps_a_module_whole(tmp_path: Path) -> None:
    """The remark says why."""

    def logs(self: Part, x: torch.Tensor) -> torch.Tensor:
        with (tmp_path / "log").open("a") as file:
            file.write("step\n")
        return self.fc(x)

    program = capture(Trunk(Part(logs)), (x(),))
    assert opaque_paths(program) == ["middle"]
    assert "opens a file to write to it" in program.remarks[0].message


class Lazy(nn.Module):
    """Sets itself up when it first runs, as libraries do."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.kind: str | None = None
        self.table: torch.Tensor | None = None
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind is None:
            self.kind, self.table = "regression", torch.arange(4.0)
        return self.fc(x) + self.table


def test_what_a_first_forward_sets_up_is_found_by_the_graph() -> None:
    """The model is left as it was by capture, and set up by its first real step."""
    model = Lazy()
    program = capture(model, (x(),))
    assert program.front_end == "symbolic"
    assert model.kind is None
    plain = Lazy()
    plain.load_state_dict(model.state_dict())
    parallel = autopar.parallelize(model, "ddp")
    assert torch.equal(parallel(x()), plain(x()))
    assert model.kind == "regression"
    assert torch.equal(parallel(x(5)), plain(x(5)))


def test_a_counter_is_not_set_up() -> None:
    """It changes in every forward: the module that counts stays whole, and counts once a step."""

    def counts(self: Part, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.fc(x) * self.calls

    model = autopar.parallelize(Trunk(Part(counts)), "ddp")
    for _ in range(3):
        model(x())
    assert model.middle.calls == 3


def test_objects_that_hold_no_tensor_are_returned_as_they_are() -> None:
    """Settings that a result refers to are the model's own."""
    settings = object()

    class Result:
        def __init__(self, logits: torch.Tensor) -> None:
            self.logits, self.settings, self.names = logits, settings, ["a"]

    program = capture(Part(lambda self, x: Result(self.fc(x))), (x(),))
    found: Any = program.signature.unflatten(program.graph_module(x()))
    assert type(found) is Result
    assert found.settings is settings


class Worldly(nn.Module):
    """Does things besides computing, in a part of its own."""

    def __init__(self, folder: Path, deed: str) -> None:
        super().__init__()
        self.fc, self.last, self.folder, self.deed = nn.Linear(4, 4), nn.Linear(4, 2), folder, deed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        log = self.folder / "log"
        if self.deed == "append":
            with log.open("a") as file:
                file.write("step\n")
            assert log.read_text().endswith("step\n")  # what it wrote is there for itself
        elif self.deed == "numpy":
            numpy.save(self.folder / "sum.npy", x.detach().numpy())
        elif self.deed == "remove":
            log.unlink(missing_ok=True)
        elif self.deed == "process":
            subprocess.run([sys.executable, "-c", f"open({str(log)!r}, 'a').write('step\\n')"], check=True)
        return self.last(self.fc(x))


def test_a_file_is_appended_to_once_a_step(tmp_path: Path) -> None:
    """However often capture runs the forward; the remark says what was not done meanwhile."""
    (tmp_path / "log").write_text("before\n")
    program = capture(nn.Sequential(nn.Linear(4, 4), Worldly(tmp_path, "append")), (x(),))
    assert (tmp_path / "log").read_text() == "before\n"
    assert opaque_paths(program) == ["1"]
    assert "ran without what it does besides computing: it opens a file to write to it" in program.remarks[-1].message
    model = autopar.parallelize(nn.Sequential(nn.Linear(4, 4), Worldly(tmp_path, "append")), "ddp")
    for _ in range(2):
        model(x())
    assert (tmp_path / "log").read_text() == "before\nstep\nstep\n"


def test_files_of_libraries_are_not_written(tmp_path: Path) -> None:
    """They open files by the same function."""
    capture(Worldly(tmp_path, "numpy"), (x(),))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("deed", "text"), [("remove", "it removes a file"), ("process", "it starts a process")])
def test_what_cannot_be_undone_is_not_begun(tmp_path: Path, deed: str, text: str) -> None:
    """The whole model stays one call that no capture runs to its end; each step does it once."""
    log = tmp_path / "log"
    log.write_text("before\n")
    program = capture(Worldly(tmp_path, deed), (x(),))
    assert program.front_end == "opaque"
    assert f"{text}, which cannot be undone" in program.remarks[0].message
    model = autopar.parallelize(Worldly(tmp_path, deed), "ddp", x())
    assert log.read_text() == "before\n"
    model(x()).sum().backward()
    assert model.fc.weight.grad is not None
    assert not log.exists() if deed == "remove" else log.read_text() == "before\nstep\n"


def test_files_that_cannot_be_opened_are_the_model_s_business(tmp_path: Path) -> None:
    """The error is that of the place where they belong."""
    with pytest.raises(FileNotFoundError):
        capture(Worldly(tmp_path / "missing", "append"), (x(),))


COUNTS: list[int] = []
total = 0


def test_counters_outside_of_the_model_count_once_a_step() -> None:
    """A list and a number of the module that the model is defined in."""

    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            global total
            total += 1
            COUNTS.append(len(x))
            return self.fc(x)

    program = capture(Trunk(Counts()), (x(),))
    assert (COUNTS, total) == ([], 0)
    assert opaque_paths(program) == ["middle"]
    assert "changes" in program.remarks[0].message
    model = autopar.parallelize(Trunk(Counts()), "ddp")
    for _ in range(2):
        model(x())
    assert (COUNTS, total) == ([3, 3], 2)


class Talks(nn.Module):
    """Tells others what it does, in one of several ways."""

    runs = 0

    def __init__(self, deed: str, file: Path) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.deed, self.file = deed, file
        self.log: TextIO | None = file.open("a") if deed == "open before" else None
        self.buffer = io.StringIO()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.deed == "stderr":
            print("step", file=sys.stderr)
        elif self.deed == "log":
            logging.getLogger("talks").warning("step")
        elif self.deed == "open before":
            assert self.log is not None
            self.log.write("step\n")
        elif self.deed == "buffer":
            self.buffer.write("step\n")
        elif self.deed == "save":
            torch.save(x.detach(), self.file)
        elif self.deed == "other module":
            counted.steps += 1
        elif self.deed == "class":
            Talks.runs += 1
        return self.fc(x)

    def told(self, captured: str, caplog: pytest.LogCaptureFixture) -> int:
        """How often."""
        if self.log is not None:
            self.log.flush()
        return {
            "stderr": captured.count("step"),
            "log": len(caplog.records),
            "open before": self.file.read_text().count("step") if self.log else 0,
            "buffer": self.buffer.getvalue().count("step"),
            "save": int(self.file.exists()),
            "other module": counted.steps,
            "class": type(self).runs,
        }[self.deed]


@pytest.mark.parametrize("deed", ["stderr", "log", "open before", "buffer", "save", "other module", "class"])
def test_others_are_told_once_a_step(
    deed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Capture tells nobody, and leaves whole what has to be told in each step."""
    counted.steps = Talks.runs = 0
    talks = Talks(deed, tmp_path / "file")
    program = capture(Trunk(talks), (x(),))
    assert talks.told(capsys.readouterr().err, caplog) == 0
    assert opaque_paths(program) == ["middle"]
    model = autopar.parallelize(Trunk(talks), "ddp")
    for _ in range(2):
        model(x())
    assert talks.told(capsys.readouterr().err, caplog) == (1 if deed == "save" else 2)


class Registry(dict[str, Any]):
    """Builds what is asked for, as libraries' tables of activations do."""

    def __getitem__(self, key: str) -> Any:
        raise AssertionError("nobody asked for it")


REGISTRY = Registry(one=int)


def test_registries_are_left_alone() -> None:
    """Looking at what a name stands for runs none of its code."""

    class Uses(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * len(REGISTRY)

    assert capture(Uses(4, 2), (x(),)).front_end == "symbolic"


@pytest.mark.parametrize("way", ["import", "import_module"])
def test_modules_that_forward_loads_see_python_as_it_is(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they keep of it outlives the recording."""
    name = f"loaded_by_{way}"
    (tmp_path / f"{name}.py").write_text("kept = range")
    monkeypatch.syspath_prepend(tmp_path)

    def loads(self: Part, x: torch.Tensor) -> torch.Tensor:
        importlib.import_module(name) if way == "import_module" else __import__(name)
        return self.fc(x)

    capture(Trunk(Part(loads)), (x(),))
    assert sys.modules[name].kept is range
