"""``autopar doctor``: what is there, what would be picked, and what is wrong with it."""

from __future__ import annotations

import json
import os
from typing import Any

import rich_click as click

from autopar.cli.options import debug_option, json_option
from autopar.cli.terminal import results, say_error
from autopar.errors import LaunchError

__all__ = ["diagnose", "doctor"]

_LAUNCH = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES", "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME",
)  # fmt: skip
_SHARED_MEMORY = "/dev/shm"


@click.command()
@json_option
@debug_option
def doctor(as_json: bool) -> int:
    """Report torch, backends, devices, launch environment, and what "auto" would pick."""
    found = diagnose()
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _print(found)
    for problem in found["problems"]:
        say_error(problem, LaunchError.code)
    return LaunchError.exit_code if found["problems"] else 0


def diagnose() -> dict[str, Any]:
    """What there is in this environment, as JSON values; ``problems`` is empty where all is well."""
    import platform

    import torch
    import torch.distributed as dist

    from autopar.shm.rendezvous import collectives_here
    from autopar.strategies.auto import pick_strategy

    distributed = dist.is_available()
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": str(torch.__version__),
        "cpu_count": os.cpu_count(),
        "cpus_usable": _usable_cpus(),
        "threads": torch.get_num_threads(),
        "backends": {
            "gloo": distributed and dist.is_gloo_available(),
            "nccl": distributed and dist.is_nccl_available(),
            "mpi": distributed and dist.is_mpi_available(),
        },
        "devices": _devices(),
        "shared_memory_bytes": _shared_memory(),
        "collectives": collectives_here(),
        "launch": {name: os.environ[name] for name in _LAUNCH if name in os.environ},
        "strategy": None,
        "reason": None,
        "problems": [],
    }
    try:
        strategy, reason = pick_strategy()
        found |= {"strategy": strategy.name, "reason": reason}
    except LaunchError as error:
        found["problems"].append(str(error))
    if not distributed:
        found["problems"].append("This torch is built without torch.distributed. Install another build of torch.")
    return found


def _devices() -> list[str]:
    import torch

    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return ["cpu", *(f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(cuda))]


def _usable_cpus() -> int | None:
    """CPUs that this process may use: fewer than there are, in a container or under taskset."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _shared_memory() -> int | None:
    import shutil

    return shutil.disk_usage(_SHARED_MEMORY).total if os.path.isdir(_SHARED_MEMORY) else None


def _print(found: dict[str, Any]) -> None:
    from autopar.view.units import bytes_text

    console = results()
    memory = found["shared_memory_bytes"]
    backends = [f"{name} {'yes' if there else 'no'}" for name, there in found["backends"].items()]
    launch = [f"{name}={value}" for name, value in found["launch"].items()]
    picked = f"{found['strategy']} ({found['reason']})" if found["strategy"] else "nothing, see below"
    for label, text in (
        ("torch", f"{found['torch']}, Python {found['python']}"),
        ("platform", found["platform"]),
        ("CPUs", f"{found['cpus_usable']} of {found['cpu_count']}, {found['threads']} threads for torch"),
        ("devices", ", ".join(found["devices"])),
        ("backends", ", ".join(backends)),
        ("shared memory", f"{bytes_text(memory)} in {_SHARED_MEMORY}" if memory is not None else "unknown"),
        ("gradients", found["collectives"]),
        ("launch", ", ".join(launch) or "one process, nothing set by a launcher"),
        ("auto picks", picked),
    ):
        console.print(f"{label + ':':15}{text}", soft_wrap=not console.is_terminal)
