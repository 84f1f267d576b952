"""The exit code says what kind of trouble it was, whichever command met it; the page on configuration has the table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.conftest import MODEL, Command

FILES = {
    "model.py": MODEL,
    "two.py": "from torch import nn\n\none = nn.Linear(4, 2)\nother = nn.Linear(4, 2)\n",
    "none.py": "x = 1\n",
    "arguments.py": "from torch import nn\n\nclass Net(nn.Module):\n    def __init__(self, size): ...\n",
    "broken.py": "class Net(:\n",
    "frozen.py": "from torch import nn\n\nmodel = nn.Linear(4, 2).requires_grad_(False)\n",
    "lazy.py": "from torch import nn\n\nmodel = nn.LazyLinear(2)\n",
    "graph.json": '{"version": 99}',
}
INPUT = ("--input", "4x2x10")

CASES = [
    (0, ("passes",)),
    (0, ("explain", "AP103")),
    (0, ("view", "model.py", *INPUT)),
    (2, ("transform", "missing.py")),
    (2, ("transform", "two.py", *INPUT)),
    (2, ("transform", "model.py", *INPUT, "--strategy", "dpp")),
    (2, ("transform", "model.py", *INPUT, "--passes", "shapes,nothing")),
    (2, ("transform", "model.py", *INPUT, "--passes", "ddp-sync")),
    (2, ("transform", "model.py", *INPUT, "--option", "replicas")),
    (2, ("transform", "model.py", *INPUT, "--world-size", "0")),
    (2, ("transform", "model.py", "--input", "4xx")),
    (2, ("transform", "model.py", "--worldsize", "2")),
    (2, ("view", "model.py", *INPUT, "--format", "tabel")),
    (2, ("verify", "model.py", *INPUT, "--optimizer", "adamm")),
    (2, ("diff", "nowhere", "nowhere")),
    (2, ("explain", "AP999")),
    (2, ("run", "--nproc", "2")),
    (2, ("lsit",)),
    (3, ("transform", "none.py")),
    (3, ("transform", "broken.py")),
    (3, ("transform", "arguments.py")),
    (3, ("transform", "frozen.py", "--input", "3x4")),
    (3, ("explain", "lazy.py", "--input", "3x4")),
    (3, ("view", "model.py", "--input", "4x2x11")),
    (3, ("verify", "none.py")),
    (3, ("bench", "none.py")),
    (3, ("view", "graph.json")),
]


@pytest.mark.parametrize(("code", "words"), CASES, ids=[" ".join(words) for _, words in CASES])
def test_code_and_one_sentence(code: int, words: tuple[str, ...], command: Command) -> None:
    """Trouble is said on standard error with its code, in a few lines, and nothing is written."""
    for name, text in FILES.items():
        Path(name).write_text(text)
    ended = command(*words)
    assert ended.code == code, ended.err
    assert {path.name for path in Path().iterdir()} - {"__pycache__"} == FILES.keys()
    if code:
        assert re.search(r"^autopar: error\[AP\d{3}\]: ", ended.err, re.MULTILINE)
        assert "Traceback" not in ended.err
        assert len(ended.err.splitlines()) < 12
        assert ended.out == ""
