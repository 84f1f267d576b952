"""Lines on standard error for who trains, on rank 0 alone."""

from __future__ import annotations

import os
import sys

import torch.distributed as dist

from autopar.progress import Tell

__all__ = ["say", "slow_capture"]


def say(message: str) -> None:
    """One line on rank 0; ``AUTOPAR_QUIET=1`` keeps it out."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    if rank == 0 and os.environ.get("AUTOPAR_QUIET", "0") in ("", "0"):
        print(f"autopar: {message}", file=sys.stderr, flush=True)


def slow_capture(name: str) -> Tell:
    """Says once that the capture of a model takes a while, and what it is at."""
    said = False

    def tell(phase: str, seconds: float) -> None:
        nonlocal said
        if not said:
            say(f"capturing {name} takes a while: {seconds:.0f} s so far, {phase}")
        said = True

    return tell
