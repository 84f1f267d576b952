"""``autopar init``: a section that the other commands read."""

from __future__ import annotations

import sys
from pathlib import Path

from autopar.cli.configuration import file_values
from autopar.cli.main import cli
from tests.cli.conftest import Command

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def test_all_that_is_commented_out_is_an_option(command: Command) -> None:
    """Without its comment signs every line is right, and none is needed."""
    ended = command("init")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("Wrote pyproject.toml.")
    text = Path("pyproject.toml").read_text()
    assert tomllib.loads(text) == {"tool": {"autopar": {}}}
    named = [line for line in text.splitlines() if line.startswith("# ") and " = " in line]
    Path("pyproject.toml").write_text("[tool.autopar]\n" + "\n".join(line[2:] for line in named))
    transform = cli.commands["transform"].load()  # type: ignore[attr-defined]
    values, _ = file_values(transform, {"transform": transform})
    assert values.keys() >= {"strategy", "model", "inputs", "capture", "weight", "world_size"}
    assert len(values) == len(named)
    assert (values["capture"], values["strategy"], values["inputs"]) == ("auto", "NAME", ["SHAPE[:DTYPE]"])


def test_names_the_model_that_it_finds(command: Command, model_file: Path) -> None:
    """What the file holds already stays; the next command needs no options."""
    Path("pyproject.toml").write_text("[project]\nname = 'mine'\n")
    ended = command("init", str(model_file), "--input", "4x2x10")
    assert ended.code == 0, ended.err
    read = tomllib.loads(Path("pyproject.toml").read_text())
    assert read == {"project": {"name": "mine"}, "tool": {"autopar": {"model": "Net", "input": ["4x2x10"]}}}
    assert command("explain", str(model_file)).code == 0


def test_what_is_there_is_left_alone(command: Command) -> None:
    """A section is the user's."""
    Path("pyproject.toml").write_text("[tool.autopar]\nworld-size = 2\n")
    ended = command("init")
    assert ended.code == 2
    assert "has a section [tool.autopar]" in ended.err
    assert Path("pyproject.toml").read_text() == "[tool.autopar]\nworld-size = 2\n"


def test_no_model_in_the_file(command: Command, tmp_path: Path) -> None:
    """Nothing is written then."""
    (tmp_path / "empty.py").write_text("x = 1\n")
    assert command("init", str(tmp_path / "empty.py")).code == 3
    assert not Path("pyproject.toml").exists()
