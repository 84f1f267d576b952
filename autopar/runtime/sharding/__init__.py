"""Optimizer state divided among the ranks.

What may live here: which part of which parameter a rank updates, and how parts become whole again. What may not:
gradients, which buckets average.
"""

from autopar.runtime.sharding.optimizer import ShardedOptimizer

__all__ = ["ShardedOptimizer"]
