"""The random streams of a process, kept and put back."""

from __future__ import annotations

import random
import sys
from typing import Any

import torch

__all__ = ["RandomStreams"]


class RandomStreams:
    """The state of every random generator of this process: Python's, NumPy's and torch's."""

    def __init__(self) -> None:
        self._python = random.getstate()
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        numpy = _numpy_random()
        self._numpy = None if numpy is None else numpy.get_state()

    def seed(self, seed: int) -> None:
        """Starts all streams anew from ``seed``."""
        random.seed(seed)
        torch.manual_seed(seed)
        numpy = _numpy_random()
        if numpy is not None:
            numpy.seed(seed)

    def restore(self) -> None:
        """Puts every stream back."""
        random.setstate(self._python)
        torch.set_rng_state(self._torch)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)
        numpy = _numpy_random()
        if numpy is not None and self._numpy is not None:
            numpy.set_state(self._numpy)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RandomStreams):
            return NotImplemented
        numpy = self._numpy is not None and other._numpy is not None  # NumPy may be imported in between
        return self._comparable(numpy) == other._comparable(numpy)

    __hash__ = None  # type: ignore[assignment]

    def _comparable(self, numpy: bool) -> tuple[Any, ...]:
        torches = tuple(state.numpy().tobytes() for state in (self._torch, *self._cuda))
        name, keys, *rest = self._numpy if numpy and self._numpy is not None else ("", None)
        return (self._python, torches, name, None if keys is None else keys.tobytes(), *rest)


def _numpy_random() -> Any:
    """NumPy's module of global random functions, if the program has imported it."""
    return sys.modules.get("numpy.random")
