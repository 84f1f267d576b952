"""``autopar doctor``: what is there, and exit code 4 where the launch environment is broken."""

from __future__ import annotations

import platform

import pytest
import torch

from tests.cli.conftest import Command

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def _no_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_one_process(command: Command) -> None:
    """Versions, devices, backends, and what would be picked."""
    ended = command("doctor", "--json")
    found = ended.json
    assert (ended.code, found["problems"]) == (0, [])
    assert (found["torch"], found["python"]) == (torch.__version__, platform.python_version())
    assert found["devices"][0] == "cpu"
    assert set(found["backends"]) == {"gloo", "nccl", "mpi"}
    assert found["strategy"] in ("ddp", "data_parallel")
    assert found["reason"]
    assert found["launch"] == {name: value for name, value in found["launch"].items() if name not in NAMES}


def test_text_says_the_same(command: Command) -> None:
    """One labelled line for each fact."""
    lines = dict(line.split(":", 1) for line in command("doctor").out.splitlines())
    assert {"torch", "devices", "backends", "launch", "shared memory", "auto picks"} <= lines.keys()
    assert torch.__version__ in lines["torch"]


def test_launched_ranks(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole launch environment picks ddp."""
    environment = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = command("doctor", "--json").json
    assert found["strategy"] == "ddp"
    assert found["launch"].items() >= environment.items()


@pytest.mark.parametrize(
    ("environment", "fact"),
    [
        ({"RANK": "1"}, "WORLD_SIZE"),
        ({"WORLD_SIZE": "2"}, "RANK"),
        ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK=2 and WORLD_SIZE=2"),
        ({"RANK": "one", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK"),
    ],
)
def test_broken_launch(
    command: Command, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], fact: str
) -> None:
    """The report still comes; the problem is a line on standard error, and the exit code is 4."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ended = command("doctor", "--json")
    assert ended.code == 4
    assert ended.json["strategy"] is None
    assert fact in ended.json["problems"][0]
    assert ended.err.startswith("autopar: error[AP301]: ")
    assert len(ended.err.splitlines()) == 1
