"""Runs that outlive a failure, and runs over several nodes, by the same command line."""

from __future__ import annotations

import contextlib
import io
import runpy
import socket
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from tests.restarts import EXAMPLES, end, killing, start, tensors
from tests.runtime.pairs import Ranks

_EXAMPLE = EXAMPLES / "char_lm.py"


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
    script = killing("char_lm.py", {0: (1, 8)}, tmp_path)  # three steps after its last checkpoint
    options = ("--steps", "12", "--save-every", "5", "--checkpoints")
    disturbed = start("--nproc", "2", "--max-restarts", "3", script, *options, str(tmp_path / "broken"))
    whole, _ = ranks(run_example, 2, *options, str(tmp_path / "whole"), timeout=200.0)
    broken, err = end(disturbed)
    assert "exitcode: -9" in err  # torchrun's own words for what it restarts after
    assert broken == whole
    one, other = tensors(tmp_path / "whole"), tensors(tmp_path / "broken")
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
    nodes = [start(*options, "--local-addr", address, script) for address in ("127.0.0.1", "127.0.0.2")]
    assert sorted(end(node)[0] for node in nodes) == ["0 0 [[1.5, 1.5]]\n", "1 0 [[1.5, 1.5]]\n"]


def test_under_slurm(tmp_path: Path) -> None:
    """Two tasks that srun would have started: each is a rank, without a launcher in between."""
    script = _script(tmp_path)
    step = {
        "SLURM_NTASKS": "2",
        "SLURM_STEP_ID": "0",
        "SLURM_JOB_NODELIST": "localhost",
        "MASTER_PORT": str(_free_port()),
    }
    tasks = [start(script, SLURM_PROCID=str(n), SLURM_LOCALID=str(n), **step) for n in range(2)]
    assert [end(task)[0] for task in tasks] == ["0 0 [[1.5, 1.5]]\n", "1 1 [[1.5, 1.5]]\n"]
