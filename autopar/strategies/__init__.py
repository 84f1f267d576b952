"""Strategies: which pipeline rewrites a program, and which runtime executes it.

What may live here: the choice, as small frozen dataclasses with their options. What may not: graph
rewriting (a pass), decisions about buckets (the partitioner), or collectives (the runtime).
"""

from autopar.strategies.base import Strategy, register_strategy, resolve, strategies
from autopar.strategies.data_parallel import DataParallel
from autopar.strategies.ddp import DDP
from autopar.strategies.zero1 import ZeRO1

__all__ = ["DDP", "DataParallel", "Strategy", "ZeRO1", "register_strategy", "resolve", "strategies"]
