"""How ranks find out that they share a host, and map each other's memory; all decide alike."""

from __future__ import annotations

import ctypes
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autopar.shm.arena import Arena
from autopar.shm.communicator import Communicator
from autopar.shm.compiling import kernels
from autopar.shm.layout import MAX_RANKS, Control
from autopar.shm.peers import Peer
from autopar.shm.portable import PortableTransport, is_ordered
from autopar.shm.segment import Segment
from autopar.shm.transport import NativeTransport, Transport

__all__ = ["Exchange", "collectives_here", "connect", "host_name"]

# Gives a JSON value to all ranks and returns all ranks' values in rank order.
Exchange = Callable[[Any], list[Any]]


def connect(rank: int, world_size: int, exchange: Exchange, *, timeout: float, reserve: int = 0) -> Communicator | str:
    """A communicator of all ranks, or the reason why there cannot be one: the same kind of answer on all ranks.

    Args:
        rank: this rank.
        world_size: how many there are, 64 at most.
        exchange: how they talk before; called twice.
        timeout: seconds that an operation waits for other ranks.
        reserve: bytes of tensors (``Communicator.empty``) that there must be room for.
    """
    own = _Own(reserve, world_size)
    offers = exchange(own.offer)
    reason = _first(offer["problem"] for offer in offers) or _apart(offers)
    controls: list[Control] = []
    if world_size > MAX_RANKS:
        reason = f"there are more than {MAX_RANKS} ranks"
    if not reason:
        try:
            controls = [_control_of(offer) for offer in offers]
        except OSError as error:
            reason = f"rank {rank} cannot map the memory of another ({error.strerror or error})"
    reason = _first(exchange(reason))
    if reason:
        own.close()
        return reason
    assert own.arena is not None, "else this rank had reported a problem"
    library = kernels()
    transport: Transport
    if library is None:
        transport = PortableTransport(rank, controls)
    else:
        transport = NativeTransport(library, rank, controls)
    peers = [Peer(offer["pid"], offer["started"]) for offer in offers]
    return Communicator(rank, peers, controls, transport, own.arena, timeout=timeout, on_close=own.close)


def collectives_here() -> str:
    """What would carry messages between processes of this host, in words."""
    own = _Own(0, 1)
    own.close()
    if own.offer["problem"]:
        return f"gloo on the CPU, because {own.offer['problem']}"
    return f"shared memory on the CPU, {'without a C compiler' if kernels() is None else 'compiled'}"


def host_name() -> str:
    """Identifies this running host: the kernel makes a new one at each boot; empty where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class _Own:
    """This rank's memory, and what the others must know of it."""

    def __init__(self, reserve: int, world_size: int) -> None:
        self.control: Control | None = None
        self.arena: Arena | None = None
        self._segment: Segment | None = None
        self.offer: dict[str, Any] = {"problem": ""}
        try:
            if kernels() is None and not is_ordered():
                raise OSError("there is no C compiler, and this processor needs one")
            self._segment = segment = Segment.create(ctypes.sizeof(Control))
            self.control = control = Control.from_buffer(segment.memory)
            control.identity = secrets.token_hex(24).encode()
            self.arena = Arena(reserve, self._announce, sharers=world_size)
            peer = Peer.this_process()
        except OSError as error:
            self.offer["problem"] = error.strerror or str(error)
            return
        self.offer |= {
            "host": host_name(),
            "pid": peer.pid,
            "started": peer.started,
            "fd": segment.fd,
            "identity": control.identity.decode(),
        }

    def close(self) -> None:
        if self._segment is not None:
            self._segment.close()
        if self.arena is not None:
            self.arena.close()

    def _announce(self, number: int, segment: Segment) -> None:
        assert self.control is not None
        self.control.segment_fds[number] = segment.fd


def _control_of(offer: dict[str, Any]) -> Control:
    segment = Segment.of_peer(offer["pid"], offer["fd"])
    if segment.nbytes < ctypes.sizeof(Control):
        raise OSError("it is another process")
    control = Control.from_buffer(segment.memory)
    if control.identity.decode() != offer["identity"]:  # the same number in another PID namespace
        raise OSError("it is another process")
    return control


def _apart(offers: list[dict[str, Any]]) -> str:
    hosts = {offer["host"] for offer in offers}
    return "" if len(hosts) == 1 and "" not in hosts else "the ranks are on several hosts"


def _first(problems: Any) -> str:
    return next((problem for problem in problems if problem), "")
