"""Slurm's variables as those of torchrun, or as options for it."""

from __future__ import annotations

import pytest

from autopar.errors import LaunchError
from autopar.scripts.slurm import environment_of_task, is_task, rendezvous

_TASK = {
    "SLURM_STEP_ID": "3",
    "SLURM_JOB_ID": "100",
    "SLURM_NTASKS": "8",
    "SLURM_NNODES": "2",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_NODELIST": "gpu[07-08]",
}


def test_a_task_is_a_rank() -> None:
    """Every task of a step finds the same host and port; a port that was chosen is kept."""
    found = environment_of_task(_TASK)
    assert found == {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "gpu07",
        "MASTER_PORT": "15103",
    }
    assert environment_of_task({**_TASK, "MASTER_PORT": "9"})["MASTER_PORT"] == "9"


def test_what_is_no_task_of_several() -> None:
    """A batch script, a step of one task, and a process below another launcher are left alone."""
    assert is_task(_TASK)
    assert not is_task({name: value for name, value in _TASK.items() if name != "SLURM_STEP_ID"})
    assert not is_task({**_TASK, "SLURM_NTASKS": "1"})
    assert not is_task({**_TASK, "RANK": "0"})
    assert not is_task({})


def test_a_launcher_on_every_node() -> None:
    """They meet on the first node; several of them on one node would divide its devices wrongly."""
    options = rendezvous({**_TASK, "SLURM_NTASKS": "2"})
    assert options == ["--nnodes=2", "--rdzv-backend=c10d", "--rdzv-endpoint=gpu07:15103", "--rdzv-id=100"]
    with pytest.raises(LaunchError, match=r"8 tasks on 2 nodes.*--ntasks-per-node=1"):
        rendezvous(_TASK)


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("SLURM_PROCID", None, "SLURM_PROCID is missing"),
        ("SLURM_LOCALID", "x", "SLURM_LOCALID is 'x', which is no number"),
        ("SLURM_JOB_NODELIST", None, "SLURM_JOB_NODELIST is missing"),
    ],
)
def test_incomplete_variables(name: str, value: str | None, what: str) -> None:
    """The first that is missing is named."""
    broken = {key: text for key, text in {**_TASK, name: value}.items() if text is not None}
    with pytest.raises(LaunchError, match=what):
        environment_of_task(broken)
