"""The random number streams of a rank: Python's, numpy's if it is there, and torch's."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import sys
from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["restore", "snapshot"]


def snapshot() -> dict[str, Any]:
    """The state of every stream, as JSON; of CUDA that of the current device."""
    version, words, gauss = random.getstate()
    streams: dict[str, Any] = {"python": [version, list(words), gauss], "torch": _text(torch.get_rng_state())}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        streams["cuda"] = _text(torch.cuda.get_rng_state())
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        name, keys, *rest = numpy.random.get_state()
        streams["numpy"] = [name, keys.tolist(), *rest]
    return streams


def restore(ranks: Sequence[dict[str, Any]], rank: int, world_size: int) -> None:
    """Puts the streams where they were.

    With as many ranks as in the checkpoint each takes its own streams up. Otherwise no rank can go on as before;
    then every one starts streams of its own, which follow from the checkpoint alone.

    Args:
        ranks: what ``snapshot`` gave on each rank.
        rank: this rank.
        world_size: how many there are now.
    """
    if len(ranks) != world_size:
        digest = hashlib.sha256(f"{rank} of {world_size}: {json.dumps(ranks[0])}".encode()).digest()
        seed = int.from_bytes(digest[:8], "big") >> 1
        random.seed(seed)
        torch.manual_seed(seed)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(seed % 2**32)
        return
    streams = ranks[rank]
    version, words, gauss = streams["python"]
    random.setstate((version, tuple(words), gauss))
    torch.set_rng_state(_tensor(streams["torch"]))
    if "cuda" in streams and torch.cuda.is_available():
        torch.cuda.set_rng_state(_tensor(streams["cuda"]))
    if "numpy" in streams and "numpy" in sys.modules:
        sys.modules["numpy"].random.set_state(tuple(streams["numpy"]))


def _text(state: torch.Tensor) -> str:
    return base64.b64encode(bytes(state.numpy())).decode()


def _tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
