"""A script under Slurm's ``srun``: who meets whom and where, from its variables alone."""

from __future__ import annotations

import re
from collections.abc import Mapping

from autopar.errors import LaunchError

__all__ = ["environment_of_task", "first_host", "is_task", "rendezvous"]

_PORTS = range(15_000, 30_000)  # below those that systems hand out by themselves


def is_task(environment: Mapping[str, str]) -> bool:
    """Whether ``srun`` started this process as one of several, and no launcher has named its rank since.

    A batch script has most of these variables, too, but only tasks of a step have a step's number.
    """
    step = "SLURM_STEP_ID" in environment or "SLURM_STEPID" in environment
    return step and "RANK" not in environment and _number(environment, "SLURM_NTASKS", 1) > 1


def environment_of_task(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that torchrun would set, for a task that is one rank.

    Raises:
        LaunchError: a variable is missing or no number.
    """
    size, rank = _number(environment, "SLURM_NTASKS"), _number(environment, "SLURM_PROCID")
    host, port = _meeting_place(environment)
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(_number(environment, "SLURM_LOCALID")),
        "MASTER_ADDR": environment.get("MASTER_ADDR", host),
        "MASTER_PORT": environment.get("MASTER_PORT", str(port)),
    }


def rendezvous(environment: Mapping[str, str]) -> list[str]:
    """Options with which the torchruns of all nodes meet, for one task a node.

    Raises:
        LaunchError: several tasks run on a node, or a variable is missing or no number.
    """
    tasks, nodes = _number(environment, "SLURM_NTASKS"), _number(environment, "SLURM_NNODES")
    if tasks != nodes:
        raise LaunchError(
            f"Slurm started {tasks} tasks on {nodes} nodes, and --nproc asks each for more processes.",
            mend="Give srun --ntasks-per-node=1, or leave --nproc out to make every task a rank.",
        )
    host, port = _meeting_place(environment)
    job = environment.get("SLURM_JOB_ID", "autopar")
    return [f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={host}:{port}", f"--rdzv-id={job}"]


def first_host(nodes: str) -> str:
    """The first host of a list as Slurm writes it.

    Example:
        >>> first_host("gpu-[007-009,12],login1"), first_host("a1,a2"), first_host("r[1-2]n[03,05]-ib")
        ('gpu-007', 'a1', 'r1n03-ib')
    """
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    assert first is not None
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first.group())


def _meeting_place(environment: Mapping[str, str]) -> tuple[str, int]:
    """The first host, and a port that follows from job and step, so that all find it without asking."""
    host = first_host(environment.get("SLURM_JOB_NODELIST", ""))
    if not host:
        raise LaunchError(
            "Slurm's variable SLURM_JOB_NODELIST is missing.", mend="Start with srun, or set RANK and WORLD_SIZE."
        )
    place = _number(environment, "SLURM_JOB_ID", 0) + _number(environment, "SLURM_STEP_ID", 0)
    return host, _PORTS[place % len(_PORTS)]


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, default)
    try:
        return int(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        what = "missing" if text is None else f"{text!r}, which is no number"
        raise LaunchError(
            f"Slurm's variable {name} is {what}.", mend="Start with srun, or set RANK and WORLD_SIZE."
        ) from None
