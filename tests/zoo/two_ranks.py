"""Two ranks: the parallel model against torch's DistributedDataParallel, from each rank's own data."""

from __future__ import annotations

import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import autopar
from tests.zoo.difference import Difference, largest
from tests.zoo.entry import Entry
from tests.zoo.steps import build, make_inputs, run_step

__all__ = ["check"]

SIZES = (2, 3)


def check(entry: Entry) -> Difference:
    """The largest difference of this rank's loss and gradients to DDP's, over two steps."""
    model = autopar.parallelize(build(entry), "ddp")
    twin = build(entry)
    theirs = DistributedDataParallel(twin, find_unused_parameters=entry.unused)
    found = Difference()
    for step, size in enumerate(SIZES):
        seed = 100 * dist.get_rank() + 10 + step
        mine = run_step(entry, model, make_inputs(entry, size, seed), seed)
        ddp = run_step(entry, twin, make_inputs(entry, size, seed), seed, forward=theirs)
        here = largest({"the loss": mine.loss, **mine.gradients}, {"the loss": ddp.loss, **ddp.gradients})
        found = max(found, here, key=lambda one: one.ulps)
    return found
