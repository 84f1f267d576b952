"""A short training on every rank, into which one fault is put on rank 1 at step 3."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

import autopar
from autopar.errors import AutoparError

__all__ = ["FAULTY_RANK", "INJECTED", "RANDOM_KILL", "TIMEOUT", "Outcome", "train"]

FAULTY_RANK, FAULTY_STEP, STEPS, MANY_STEPS = 1, 3, 6, 100_000
RANDOM_KILL = "killed at a random moment"
TIMEOUT = 2.0  # seconds that a rank waits for the others


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a rank ended.

    Attributes:
        said: what it raised; "" where it came to the end.
        seconds: from the beginning of the step with the fault.
        pid: of its process.
        checksum: of its parameters at the end.
    """

    said: str
    seconds: float
    pid: int
    checksum: float


class Branching(nn.Module):
    """Three layers, of which a rank may leave one out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(64, 64) for _ in range(3))

    def forward(self, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """One scalar."""
        x = self.first(x)
        if bool(gate > 0):
            x = self.second(x)
        return self.third(x).sum()


class PlannedError(Exception):
    """What the faulty rank's own code raises."""


def _kill(*ignored: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_soon(*ignored: object) -> None:
    """Somewhere in the next steps, of which each takes a few milliseconds."""
    threading.Timer(random.SystemRandom().uniform(0.0, 0.1), _kill).start()


def _raise(*ignored: object) -> None:
    raise PlannedError("a bad sample")


def _hang(*ignored: object) -> None:
    """Until the others have given up."""
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    store.wait([f"ended {rank}" for rank in range(dist.get_world_size()) if rank != FAULTY_RANK])


def _be_slow(*ignored: object) -> None:
    time.sleep(TIMEOUT / 4)


def _lose_connections(*ignored: object) -> None:
    """Shuts every TCP connection of this process, as a broken cable would."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as connection:
            connection.getpeername()  # else it only listens
            if connection.family in (socket.AF_INET, socket.AF_INET6):
                connection.shutdown(socket.SHUT_RDWR)


def _fill_shared_memory() -> None:
    """Puts a /dev/shm of one page, which is taken, in front of this process alone; needs root."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_namespace, private = 0x00020000, 0x00040000 | 0x4000
    if libc.unshare(new_namespace) or libc.mount(b"none", b"/", None, private, None):
        raise PermissionError(ctypes.get_errno(), "No mounts of one's own are allowed here")
    if libc.mount(b"none", b"/dev/shm", b"tmpfs", 0, b"size=4k"):
        raise PermissionError(ctypes.get_errno(), "No mounts are allowed here")
    Path("/dev/shm/full").write_bytes(bytes(4096))
    try:
        Path("/dev/shm/more").write_bytes(bytes(1))
    except OSError:
        return
    raise AssertionError("/dev/shm is not full")


# Fault to the moments at which it happens; a moment is where `train` calls it.
INJECTED: dict[str, dict[str, Callable[..., None]]] = {
    "killed before a collective": {"forward": _kill},
    "killed inside a collective": {"backward": _kill},
    "killed after a collective": {"update": _kill},
    RANDOM_KILL: {"forward": _kill_soon},
    "raises": {"forward": _raise},
    "hangs": {"forward": _hang},
    "is slow": {"forward": _be_slow},
    "loses its connections": {"forward": _lose_connections},
    "finds /dev/shm full": {},
    "takes another branch": {},
    "skips a backward": {},
    "may take no shared memory": {},
}


def train(fault: str, backend: str) -> Outcome:
    """Trains to the end, or to the error that the fault causes."""
    faulty = int(os.environ["RANK"]) == FAULTY_RANK
    if faulty and fault == "may take no shared memory":
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    if faulty and fault == "finds /dev/shm full":
        _fill_shared_memory()
    torch.manual_seed(int(os.environ["RANK"]))
    model = autopar.parallelize(Branching(), "ddp", timeout=TIMEOUT, backend=backend, bucket_cap_mb=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    said, started = "", time.monotonic()
    try:
        for step in range(MANY_STEPS if fault == RANDOM_KILL else STEPS):
            now = faulty and step == FAULTY_STEP
            started = time.monotonic() if step == FAULTY_STEP else started
            _step(model, optimizer, INJECTED[fault] if now else {}, fault if now else "")
    except (AutoparError, PlannedError) as error:
        said = str(error)
    outcome = Outcome(said, time.monotonic() - started, os.getpid(), _checksum(model))
    if fault == "hangs" and not faulty:
        store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
        store.set(f"ended {os.environ['RANK']}", "")
    return outcome


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, at: dict[str, Callable[..., None]], fault: str) -> None:
    optimizer.zero_grad()
    at.get("forward", lambda: None)()
    loss = model(torch.randn(4, 64), torch.tensor(-1.0 if fault == "takes another branch" else 1.0))
    if "backward" in at:  # the gradient of the last layer is on its way then
        handle = model.get_parameter("first.weight").register_hook(at["backward"])
    if fault != "skips a backward":
        loss.backward()
    if "backward" in at:
        handle.remove()
    at.get("update", lambda: None)()
    optimizer.step()


def _checksum(model: nn.Module) -> float:
    return float(sum(parameter.detach().double().abs().sum() for parameter in model.parameters()))
