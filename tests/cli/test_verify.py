"""``autopar verify``: a table, JSON, and exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command

MODEL = """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
print("building")
unused = torch.compile


def example_inputs():
    return torch.arange(48.0).sin().view(8, 6)


def own(output):
    return output.pow(4).mean()
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A model file in the current folder."""
    (tmp_path / "model.py").write_text(MODEL)
    return "model.py"


def test_table(command: Command, file: str) -> None:
    """What was compared with what, how close it came, and the verdict."""
    ended = command("verify", file, "--steps", "2", "--optimizer", "SGD", "--loss", "own")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == "model in model.py: ddp on 2 ranks"
    assert lines[1] == "2 steps of sgd, 8 samples a step, against the untouched model in one process"
    assert any(line.startswith("gradients       its parts, trained plainly  equal bits") for line in lines)
    assert any(line.startswith("gradients       the whole batch             8 x its rounding error") for line in lines)
    assert lines[-1] == "Verified: it trains the same."


def test_printed_file(command: Command, file: str, tmp_path: Path) -> None:
    """It is verified in place of the program; changed by hand it differs, by name, with exit code 1."""
    assert command("transform", file).code == 0
    ended = command("verify", file, "--program", "out/transformed.py", "--steps", "1", "--json")
    assert (ended.code, ended.json["ok"], ended.json["difference"]) == (0, True, None)
    printed = tmp_path / "out" / "transformed.py"
    printed.write_text(printed.read_text().replace("F.relu(", "2 * F.relu("))
    ended = command("verify", file, "--program", "out/transformed.py", "--steps", "1", "--json")
    assert (ended.code, ended.json["ok"]) == (1, False)
    assert (ended.json["difference"]["kind"], ended.json["difference"]["name"]) == ("outputs", "loss")
    ended = command("verify", file, "--program", "out/transformed.py", "--steps", "1")
    assert ended.code == 1
    assert "DIFFERS" in ended.out
    assert ended.out.splitlines()[-1].startswith("Step 0, rank 0: loss differs from its parts, trained plainly: it is")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--nproc", "1"], 2, "--nproc 1 was given"),
        (["--strategy", "ddq"], 2, "Did you mean 'ddp'?"),
        (["--input", "1x6"], 2, "cannot be divided over 2 parts"),
        (["--input", "8x5"], 3, "does not train plainly on these inputs"),
        (["--loss", "theirs"], 2, "has no function 'theirs'"),
        (["--program", "model.py"], 2, "was not written by `autopar transform`"),
        (["--program", "x.py", "--passes", "shapes"], 2, "--passes and --program were both given"),
        (["--plan", "nowhere.json"], 2, "cannot be read"),
    ],
)
def test_refusals(command: Command, file: str, arguments: list[str], code: int, said: str) -> None:
    """One line each, with the exit code of its kind."""
    ended = command("verify", file, *arguments)
    assert (ended.code, ended.out) == (code, "")
    (line,) = [line for line in ended.err.splitlines() if line.startswith("autopar: error[")]
    assert said in line
