"""Runs that outlive a failure, and runs over several nodes, by the same command line."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from tests.runtime.pairs import Ranks

_EXAMPLE = Path(__file__).parents[2] / "examples" / "char_lm.py"
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}

# Once, rank 1 kills itself after its 8th step: three steps after the last checkpoint.
_KILLED = f"""
    import os, runpy, signal, sys
    from torch.optim.optimizer import register_optimizer_step_post_hook
    steps = 0
    def count(optimizer, args, kwargs):
        global steps
        steps += 1
        if steps == 8 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
    register_optimizer_step_post_hook(count)
    sys.path.insert(0, {str(_EXAMPLE.parent)!r})
    runpy.run_path({str(_EXAMPLE)!r}, run_name="__main__")
"""


def _start(*words: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "autopar", "run", *words]
    variables = {**os.environ, **_ENVIRONMENT, **environment}
    return subprocess.Popen(command, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _end(process: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        out, err = process.communicate(timeout=250)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return out, err


def _tensors(run: Path) -> dict[str, torch.Tensor]:
    dcp_to_torch_save(run / "latest", run / "all.pt")
    whole = torch.load(run / "all.pt", weights_only=True)
    state = {f"{name}.{key}": t for name, own in whole["optimizer"]["state"].items() for key, t in own.items()}
    return whole["model"] | state


def run_example(*arguments: str) -> str:
    """What the example prints on this rank."""
    sys.path.insert(0, str(_EXAMPLE.parent))
    sys.argv = [str(_EXAMPLE), *arguments]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        runpy.run_path(str(_EXAMPLE), run_name="__main__")
    return out.getvalue()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_restarted_example_ends_as_if_nothing_had_been(tmp_path: Path, ranks: Ranks) -> None:
    """A rank is killed between two checkpoints: parameters, optimizer and output are the same bits at the end."""
    script = tmp_path / "killed.py"
    script.write_text(textwrap.dedent(_KILLED))
    options = ("--steps", "12", "--save-every", "5", "--checkpoints")
    disturbed = _start("--nproc", "2", "--max-restarts", "3", str(script), *options, str(tmp_path / "broken"))
    whole, _ = ranks(run_example, 2, *options, str(tmp_path / "whole"), timeout=200.0)
    broken, err = _end(disturbed)
    assert "exitcode: -9" in err  # torchrun's own words for what it restarts after
    assert broken == whole
    one, other = _tensors(tmp_path / "whole"), _tensors(tmp_path / "broken")
    assert len(one) > 60
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def _script(folder: Path) -> str:
    script = folder / "train.py"
    script.write_text(
        textwrap.dedent("""
            import os, torch, autopar
            model = autopar.parallelize(torch.nn.Linear(2, 1, bias=False))
            model(torch.full((1, 2), 1.0 + int(os.environ["RANK"]))).sum().backward()
            print(os.environ["RANK"], os.environ["LOCAL_RANK"], model.weight.grad.tolist())
        """)
    )
    return str(script)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def test_two_nodes(tmp_path: Path) -> None:
    """The same options on both, which are two addresses here; one rank each, and one mean."""
    options = ("--nproc", "1", "--nnodes", "2", "--rdzv-endpoint", f"127.0.0.1:{_free_port()}")
    script = _script(tmp_path)
    nodes = [_start(*options, "--local-addr", address, script) for address in ("127.0.0.1", "127.0.0.2")]
    assert sorted(_end(node)[0] for node in nodes) == ["0 0 [[1.5, 1.5]]\n", "1 0 [[1.5, 1.5]]\n"]


def test_under_slurm(tmp_path: Path) -> None:
    """Two tasks that srun would have started: each is a rank, without a launcher in between."""
    script = _script(tmp_path)
    step = {
        "SLURM_NTASKS": "2",
        "SLURM_STEP_ID": "0",
        "SLURM_JOB_NODELIST": "localhost",
        "MASTER_PORT": str(_free_port()),
    }
    tasks = [_start(script, SLURM_PROCID=str(n), SLURM_LOCALID=str(n), **step) for n in range(2)]
    assert [_end(task)[0] for task in tasks] == ["0 0 [[1.5, 1.5]]\n", "1 1 [[1.5, 1.5]]\n"]
