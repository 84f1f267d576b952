"""'cuda' means the CPU inside of the block, and nothing is left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from autopar.scripts.cuda_redirect import cuda_means_cpu

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here, so nothing is redirected")

PLACES: dict[str, Callable[[], Any]] = {
    "device": lambda: torch.device("cuda", 1),
    "index": lambda: torch.device(0),
    "factory": lambda: torch.zeros(1, device="cuda:0"),
    "factory with an index": lambda: torch.zeros(1, device=0),
    "to": lambda: torch.zeros(1).to("cuda", torch.float64),
    "to with an index": lambda: torch.zeros(1).to(0),
    "to by keyword": lambda: torch.zeros(1).to(device="cuda"),
    "cuda": lambda: torch.zeros(1).cuda(),
    "type": lambda: torch.zeros(1).type("torch.cuda.DoubleTensor"),
    "pin_memory": lambda: torch.zeros(1).pin_memory(),
    "module to": lambda: next(nn.Linear(1, 1).to("cuda").parameters()),
    "module to an index": lambda: next(nn.Linear(1, 1).to(0).parameters()),
    "module cuda": lambda: next(nn.Linear(1, 1).cuda().parameters()),
    "module made there": lambda: next(nn.Linear(1, 1, device="cuda").parameters()),
}


@pytest.mark.parametrize("place", PLACES)
def test_places(place: str) -> None:
    """Every way to name a GPU gives the CPU, and is announced."""
    said: list[bool] = []
    with cuda_means_cpu(lambda: said.append(True)):
        value = PLACES[place]()
    assert (value.type if isinstance(value, torch.device) else value.device.type) == "cpu"
    assert said == [True]


def test_default_devices() -> None:
    """A device block and the default device are redirected."""
    with cuda_means_cpu():
        with torch.device("cuda"):
            assert torch.zeros(1).device.type == "cpu"
        torch.set_default_device("cuda")
        assert torch.zeros(1).device.type == "cpu"
        torch.set_default_device(None)


def test_checkpoints(tmp_path: Path) -> None:
    """A checkpoint can be mapped to 'cuda'."""
    torch.save(torch.ones(2), tmp_path / "saved.pt")
    with cuda_means_cpu():
        assert torch.load(tmp_path / "saved.pt", map_location="cuda").device.type == "cpu"
        assert torch.load(tmp_path / "saved.pt", map_location={"cuda:0": "cuda:1"}).device.type == "cpu"


def test_device_calls() -> None:
    """Choosing and awaiting a GPU does nothing; scripts that ask still hear that there is none."""
    with cuda_means_cpu():
        torch.cuda.set_device(0)
        torch.cuda.synchronize()
        with torch.cuda.device(0):
            assert torch.cuda.current_device() == 0
        assert not torch.cuda.is_available()


def test_threads() -> None:
    """Threads that start inside are redirected as well."""
    seen: list[str] = []
    with cuda_means_cpu():
        thread = threading.Thread(target=lambda: seen.append(torch.zeros(1, device="cuda").device.type))
        thread.start()
        thread.join()
    assert seen == ["cpu"]


def test_other_devices_and_values_pass() -> None:
    """What names no GPU is untouched and not announced."""
    said: list[bool] = []
    with cuda_means_cpu(lambda: said.append(True)):
        assert torch.zeros(1, device="meta").to(torch.float64).device.type == "meta"
        assert torch.zeros(1).to(torch.ones(1, dtype=torch.int64)).dtype == torch.int64
    assert not said


def test_a_process_group_is_not_announced(tmp_path: Path) -> None:
    """It names every kind of device that its backend is for, whatever the script uses."""
    said: list[bool] = []
    with cuda_means_cpu(lambda: said.append(True)):
        dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
        dist.destroy_process_group()
    assert not said


def test_nothing_is_left() -> None:
    """After the block, the GPU is refused as before and the patches are gone."""
    before = nn.Module.to, torch.load, torch.cuda.set_device, threading.Thread.run
    with cuda_means_cpu():
        pass
    assert before == (nn.Module.to, torch.load, torch.cuda.set_device, threading.Thread.run)
    with pytest.raises((AssertionError, RuntimeError)):
        torch.zeros(1, device="cuda")


def test_compile() -> None:
    """torch.compile traces through the redirection."""
    with cuda_means_cpu(lambda: print("not traceable")):
        compiled = torch.compile(lambda x: x.to("cuda") + torch.ones(2, device="cuda"), backend="eager", fullgraph=True)
        assert compiled(torch.ones(2)).tolist() == [2.0, 2.0]
    torch.compiler.reset()
