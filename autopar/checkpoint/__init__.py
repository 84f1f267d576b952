"""Checkpoints of a whole run: written at once or not at all, in the format of ``torch.distributed.checkpoint``.

What may live here: what a run consists of, as files, and back. What may not: how it trains.
"""

from autopar.checkpoint.loading import Checkpoint, load
from autopar.checkpoint.saving import save

__all__ = ["Checkpoint", "load", "save"]
