"""Example scripts under ``autopar run``, whose ranks kill themselves at chosen steps."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

__all__ = ["EXAMPLES", "end", "killing", "start", "tensors"]

EXAMPLES = Path(__file__).parents[1] / "examples"
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}

_KILLED = """
    import os, runpy, signal, sys
    from torch.optim.optimizer import register_optimizer_step_post_hook
    steps, kills = 0, {kills!r}
    def count(optimizer, args, kwargs):
        global steps
        steps += 1
        if kills.get(int(os.environ["TORCHELASTIC_RESTART_COUNT"])) == (int(os.environ["RANK"]), steps):
            os.kill(os.getpid(), signal.SIGKILL)
    register_optimizer_step_post_hook(count)
    sys.path.insert(0, {folder!r})
    runpy.run_path({file!r}, run_name="__main__")
"""


def killing(example: str, kills: dict[int, tuple[int, int]], folder: Path) -> str:
    """A script that runs an example, but kills itself.

    Args:
        example: file in the examples' folder.
        kills: number of the start to the rank that dies and how many steps it makes in that start.
        folder: where the script is written.
    """
    script = folder / "killed.py"
    script.write_text(
        textwrap.dedent(_KILLED).format(kills=kills, folder=str(EXAMPLES), file=str(EXAMPLES / example)),
        encoding="utf-8",
    )
    return str(script)


def start(*words: str, **environment: str) -> subprocess.Popen[str]:
    """``autopar run`` with these words and variables."""
    command = [sys.executable, "-m", "autopar", "run", *words]
    variables = {**os.environ, **_ENVIRONMENT, **environment}
    return subprocess.Popen(command, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def end(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it printed on both streams, once it has ended well."""
    try:
        out, err = process.communicate(timeout=250)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return out, err


def tensors(run: Path) -> dict[str, torch.Tensor]:
    """All that the last checkpoint of a run holds, of the model and of the optimizer."""
    dcp_to_torch_save(run / "latest", run / "all.pt")
    whole = torch.load(run / "all.pt", weights_only=True)
    state = {f"{name}.{key}": t for name, own in whole["optimizer"]["state"].items() for key, t in own.items()}
    return whole["model"] | state
