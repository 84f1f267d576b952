"""Each line of docs/security.md."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn

import autopar
from autopar.cli.main import main
from autopar.emit import emit_forward
from autopar.program import Program
from tests.emit.handmade import program_of
from tests.emit.models import x

ROOT = Path(autopar.__file__).parent
CALLS = [
    (file.relative_to(ROOT), call)
    for file in ROOT.rglob("*.py")
    for call in ast.walk(ast.parse(file.read_text()))
    if isinstance(call, ast.Call)
]


def test_no_pickle_is_read() -> None:
    """Not by pickle, and not by torch; the one unpickler in the package knows a closed list of records."""
    loads = [(file, call) for file, call in CALLS if ast.unparse(call.func).endswith((".load", ".loads"))]
    assert [
        f"{file}: {ast.unparse(call)}" for file, call in loads if ast.unparse(call.func).startswith("pickle.")
    ] == []
    of_torch = [call for _, call in loads if ast.unparse(call.func) == "torch.load"]
    assert of_torch
    assert all("weights_only=True" in ast.unparse(call) for call in of_torch)
    unpicklers = [str(file) for file in ROOT.rglob("*.py") if "Unpickler" in file.read_text()]
    assert [Path(file).name for file in unpicklers] == ["tensors.py"]


@pytest.mark.parametrize("command", ["transform", "verify", "view"])
def test_help_says_that_the_file_is_executed(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever gives somebody else's file should know."""
    assert main([command, "--help"]) == 0
    assert "definitions are executed" in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_files_are_written_below_the_output_folder_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the model and the current one stay as they were."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    model = tmp_path / "model.py"
    model.write_text("from torch import nn\n\nmodel = nn.Linear(4, 2)\n")
    assert main(["transform", str(model), "--input", "3x4", "-o", str(tmp_path / "out")]) == 0
    written = {file.relative_to(tmp_path).parts[0] for file in tmp_path.rglob("*") if file.is_file()}
    assert written == {"model.py", "out"}


class _Named(nn.Module):
    """Reads one parameter and one module whose names are anything."""

    def __init__(self, parameter: str, module: str) -> None:
        super().__init__()
        self.register_parameter(parameter, nn.Parameter(x()[0].clone()))
        self.add_module(module, nn.Linear(x().shape[1], 2))
        self.names = (parameter, module)

    def forward(self, x):  # type: ignore[no-untyped-def]
        parameter, module = self.names
        return getattr(self, module)(x * getattr(self, parameter))


_PIECES = st.sampled_from(
    ['"', "'", '"""', "\\", "\n", "#", ")", "]", "};", "{0}", " ", "boom()", "a", "\u2028", "\x00"]
)
_NAMES = st.lists(_PIECES, min_size=1, max_size=8).map("".join)


@settings(max_examples=150, deadline=None)
@given(parameter=_NAMES, module=_NAMES)
def test_names_in_printed_code_stay_names(parameter: str, module: str) -> None:
    """The printed function calls what the model calls, and nothing that stands in a name."""
    if parameter == module:
        module += "_"
    model = _Named(parameter, module)
    tree = ast.parse(emit_forward(_program(model)))
    (function,) = tree.body
    assert isinstance(function, ast.FunctionDef)
    called = {ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)}
    assert not [name for name in called if re.match(r"boom\b", name)]
    assert len(function.body) <= 4  # a name has not become a statement


def _program(model: nn.Module) -> Program:
    return program_of(model, fx.Tracer().trace(model), (x(),))


_LISTENING = """
import os, time
import torch, autopar
model = autopar.parallelize(torch.nn.Linear(2, 1), backend="torch")
model(torch.ones(1, 2)).sum().backward()
inodes = set()
for pid in (os.getpid(), os.getppid()):
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            inodes.add(os.readlink(f"/proc/{pid}/fd/{name}"))
        except OSError:
            pass
for table in ("tcp", "tcp6"):
    for line in list(open(f"/proc/net/{table}"))[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
            print("LISTENS", fields[1].partition(":")[0], flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_launched_run_listens_on_loopback_alone(tmp_path: Path) -> None:
    """torchrun's store and gloo's connections, in the launcher and in both ranks."""
    script = tmp_path / "train.py"
    script.write_text(_LISTENING)
    environment = {name: value for name, value in os.environ.items() if name != "GLOO_SOCKET_IFNAME"}
    command = [sys.executable, "-m", "autopar", "run", "--nproc", "2", "--device", "cpu", str(script)]
    done = subprocess.run(
        command, env={**environment, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    addresses = set(re.findall(r"LISTENS (\w+)", done.stdout))
    assert addresses
    assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, as the tables write it
