"""Running a command line in this process: importing torch once a command would take minutes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from autopar.cli.main import main

MODEL = """
import torch
from torch import nn


def look(module, args, output):
    pass


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(10, 16)
        self.rnn = nn.LSTM(16, 8)
        self.rnn.register_forward_hook(look)
        self.fc2 = nn.Linear(8, 1)

    def forward(self, x):
        return self.fc2(self.rnn(torch.relu(self.fc1(x)))[0])
"""


@dataclass(frozen=True)
class Ended:
    """How a command line ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, read as JSON."""
        return json.loads(self.out)


Command = Callable[..., Ended]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs ``autopar`` with these arguments in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*arguments: str) -> Ended:
        capfd.readouterr()
        code = main(arguments)
        out, err = capfd.readouterr()
        return Ended(code, out, err)

    return run


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """A file with one model: two linears with an LSTM, which stays opaque, between them."""
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    return path
