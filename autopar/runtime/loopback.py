"""A store for the ranks of one machine, which no other machine can reach."""

from __future__ import annotations

import socket
from typing import Any

import torch.distributed as dist

__all__ = ["LoopbackStore"]


class LoopbackStore(dist.TCPStore):  # type: ignore[name-defined]
    """torch's ``TCPStore``, but that its server listens on loopback; torch's listens on every interface.

    Args:
        host_name: ignored by a server.
        port: 0 for a free one.
        **options: torch's.
    """

    def __init__(self, host_name: str, port: int, *, is_master: bool = False, **options: Any) -> None:
        if is_master:
            with socket.create_server(("127.0.0.1", port)) as listening:
                port = listening.getsockname()[1]
                options["master_listen_fd"] = listening.detach()  # the store closes it
        super().__init__(host_name="127.0.0.1", port=port, is_master=is_master, **options)
