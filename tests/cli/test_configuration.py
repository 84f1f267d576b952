"""Options from flags, then variables, then pyproject.toml; and where each comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command

FILE = """
[tool.autopar]
world-size = 4
input = "32x10"
rate = ["link=1e9"]

[tool.autopar.transform]
output = "parallel"

[tool.autopar.verify]
steps = 3
"""


def _rows(command: Command, *words: str) -> dict[str, list[str]]:
    ended = command(*words, "--show-config")
    assert ended.code == 0, ended.err
    return {line.split()[0]: line.split()[1:] for line in ended.out.splitlines()}


def test_order_and_origins(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flag, variable of the command, variable, the nearest file up the folders, default; no FILE is needed for it."""
    (tmp_path / "pyproject.toml").write_text(FILE)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "pyproject.toml").write_text("[project]\nname = 'without the section'\n")
    monkeypatch.chdir(tmp_path / "inner")
    monkeypatch.setenv("AUTOPAR_TRANSFORM_MODEL", "Net")
    monkeypatch.setenv("AUTOPAR_MODEL", "Other")
    monkeypatch.setenv("AUTOPAR_JSON", "1")
    rows = _rows(command, "transform", "--strategy", "ddp")
    place = str(tmp_path / "pyproject.toml")
    assert rows["strategy"] == ["ddp", "flag"]
    assert rows["model"] == ["Net", "AUTOPAR_TRANSFORM_MODEL"]
    assert rows["json"] == ["true", "AUTOPAR_JSON"]
    assert rows["world-size"] == ["4", place]
    assert (rows["input"], rows["rate"], rows["output"]) == (["32x10", place], ["link=1e9", place], ["parallel", place])
    assert rows["capture"] == ["auto", "default"]
    assert rows["plugin"] == ["-", "default"]
    assert _rows(command, "view")["model"] == ["Other", "AUTOPAR_MODEL"]
    assert _rows(command, "verify")["steps"] == ["3", place]


def test_values_are_used(command: Command, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a run that is there is shown whatever the file says about compiling."""
    Path("pyproject.toml").write_text(FILE.replace("32x10", "4x2x10"))
    assert command("transform", str(model_file), "--json").json["world_size"] == 4
    assert Path("parallel/plan.json").exists()
    monkeypatch.setenv("AUTOPAR_STRATEGY", "ddp")
    assert command("view", "parallel").code == 0
    assert command("view", "parallel", "--world-size", "2").code == 2


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("[tool.autopar]\nworld-sise = 4\n", "named 'world-sise'. Did you mean 'world-size'?"),
        ("[tool.autopar.transform]\nsteps = 4\n", "named 'steps'"),
        ("[tool.autopar]\ntransform = 4\n", "transform under [tool.autopar] is no table"),
        ("[tool.autopar]\nworld-size = [4]\n", "world-size is a list"),
        ("[tool.autopar]\nworld-size = 'many'\n", "'many' is not a valid integer. It comes from "),
        ("[tool.autopar]\nworld-size =\n", "is not TOML"),
    ],
)
def test_mistakes_in_the_file(command: Command, text: str, fact: str) -> None:
    """One line that names the file; exit code 2."""
    Path("pyproject.toml").write_text(text)
    ended = command("transform", "model.py")
    assert (ended.code, len(ended.err.splitlines())) == (2, 1)
    assert fact in ended.err
    assert "pyproject.toml" in ended.err
    assert command("transform", "--help").code == 0
