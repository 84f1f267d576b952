"""``autopar run`` on real processes: replacements, redirection, exit codes, tracebacks."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from autopar.errors import LaunchError, UsageError
from autopar.scripts.run import run_script

Write = Callable[[str], str]

REPLACED = "autopar: torch.nn.{} in script.py:{} runs on autopar.nn.{} (--no-replace turns this off)"
REDIRECTED = "autopar: --device cpu: 'cuda' means the CPU (--device overrides)"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a script; the processes get one thread each."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def write_text(text: str) -> str:
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write_text


def test_one_process(write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    """The guide's script runs unedited on autopar's DataParallel; arguments and exit code pass."""
    script = write("""
        import os, sys
        import torch
        from torch import nn
        model = nn.DataParallel(nn.Linear(10, 1))
        model = model.to("cuda")
        output = model(torch.randn(32, 10).to("cuda"))
        print(sys.argv[1:], output.shape, isinstance(model, nn.DataParallel), __name__)
        print(sys.path[0] == os.path.dirname(__file__), nn.DataParallel(nn.Linear(1, 1)).module)
        sys.exit(7)
    """)
    assert run_script(script, ["--lr", "0.1"], device="cpu") == 7
    out, err = capfd.readouterr()
    assert out.splitlines() == [
        "['--lr', '0.1'] torch.Size([32, 1]) True __main__",
        "True Linear(in_features=1, out_features=1, bias=True)",
    ]
    assert err.splitlines() == [REPLACED.format("DataParallel", 5, "DataParallel with 2 CPU replicas"), REDIRECTED]


def test_no_replace_and_traceback(write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    """Torch's own wrapper stays on request; an exception shows the script's frames only, with code 1."""
    script = write("""
        import torch
        def fail(x):
            raise ValueError(type(torch.nn.DataParallel(torch.nn.Linear(1, 1))).__module__)
        fail(1)
    """)
    assert run_script(script, device="cpu", replace=False) == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.strip(" ^~")]
    assert lines == [
        "Traceback (most recent call last):",
        f'  File "{script}", line 5, in <module>',
        "    fail(1)",
        f'  File "{script}", line 4, in fail',
        "    raise ValueError(type(torch.nn.DataParallel(torch.nn.Linear(1, 1))).__module__)",
        "ValueError: torch.nn.parallel.data_parallel",
    ]


def test_two_ranks(write: Write, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A DDP script written for GPUs trains on two CPU ranks with averaged gradients; its step is measured."""
    script = write("""
        import os
        import torch, torch.distributed as dist
        from torch import nn
        from torch.nn.parallel import DistributedDataParallel as DDP
        dist.init_process_group(backend="nccl")
        rank = int(os.environ["LOCAL_RANK"])
        torch.cuda.set_device(rank)
        model = DDP(nn.Linear(2, 1).to(rank), device_ids=[rank])
        model(torch.full((1, 2), rank + 1.0, device=f"cuda:{rank}")).sum().backward()
        assert isinstance(model, nn.parallel.distributed.DistributedDataParallel)
        assert model.module.weight.grad.tolist() == [[1.5, 1.5]], model.module.weight.grad
        dist.barrier(device_ids=[rank])
        dist.destroy_process_group()
    """)
    traces = tmp_path / "measured"
    traces.mkdir()
    (traces / "rank-7.json").write_text("of an earlier run")
    assert run_script(script, nproc=2, device="cpu", trace=traces) == 0
    assert {path.name for path in traces.iterdir()} == {"rank-0.json", "rank-1.json", "graph.json", "trace.json"}
    events = json.loads((traces / "trace.json").read_text())["traceEvents"]
    names = [one["args"]["name"] for one in events if one["name"] == "process_name"]
    assert names == ["measured rank 0", "measured rank 1", "predicted rank 0", "predicted rank 1"]
    assert [one["args"]["bytes"] for one in events if one["name"] == "bucket 0" and one["pid"] >= 8] == [12, 12]
    name = "DistributedDataParallel"
    assert sorted(capfd.readouterr().err.splitlines()) == [
        REDIRECTED,
        REPLACED.format(f"parallel.{name}", 9, name),
        f"autopar: wrote {traces / 'trace.json'}",
    ]


def test_spawned_processes(write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    """Processes that the script spawns itself get the same replacements."""
    script = write("""
        import torch, torch.multiprocessing as mp
        from torch.nn import DataParallel
        def work(rank):
            print(rank, DataParallel.__module__, torch.zeros(1, device=rank).device, flush=True)
        if __name__ == "__main__":
            mp.spawn(work, nprocs=1)
    """)
    assert run_script(script, device="cpu") == 0
    out, err = capfd.readouterr()
    assert (out, err.splitlines()) == ("0 autopar.nn.data_parallel cpu\n", [REDIRECTED])


def test_missing_script() -> None:
    """A script that is not there is a usage error."""
    with pytest.raises(UsageError, match=r"nowhere\.py does not exist"):
        run_script("nowhere.py")


@pytest.mark.parametrize("nproc", [0, -2])
def test_no_processes(write: Write, nproc: int) -> None:
    """Fewer than one process is a usage error."""
    with pytest.raises(UsageError, match=f"--nproc {nproc} was given.*Give 1 or more"):
        run_script(write(""), nproc=nproc)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-m"], "'m' option cannot be used"),
        (["--no_python"], "'no-python' option cannot be used"),
        (["--nproc_per_node=2"], "--nproc and --nproc-per-node were both given"),
    ],
)
def test_refused_launcher_options(write: Write, options: list[str], message: str) -> None:
    """Options of torchrun that contradict autopar's are usage errors."""
    with pytest.raises(UsageError, match=message):
        run_script(write(""), nproc=1, torchrun_args=options)


def test_unknown_device(write: Write) -> None:
    """An unknown device is a usage error."""
    with pytest.raises(UsageError, match="--device 'tpu' is not known"):
        run_script(write(""), device="tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_missing_device(write: Write) -> None:
    """Insisting on a GPU where there is none is an error of the environment."""
    with pytest.raises(LaunchError, match="torch finds no CUDA device"):
        run_script(write(""), device="cuda")
