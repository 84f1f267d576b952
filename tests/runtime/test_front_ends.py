"""Programs of torch.export on two ranks: DDP's gradients, buffers and training."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from autopar.attach import attachment_of
from tests.runtime.pairs import Ranks, differences, seeded, twin_of
from tests.runtime.zoo import ZOO

_MODELS = (
    ("export", "conv_bn"),
    ("export", "transformer"),
    ("export", "tied"),
    ("export", "attention"),
    ("dynamo", "conv_bn"),
)


def training() -> list[str]:
    """Names of what differs from DDP after each of two steps of each model, in batches of different sizes."""
    found = []
    for front_end, name in _MODELS:
        mine, twin = twin_of(ZOO[name].build, capture=front_end, bucket_cap_mb=0.001)
        theirs = DistributedDataParallel(twin, bucket_cap_mb=0.001, find_unused_parameters=True)
        for step in range(2):
            for model in (mine, theirs):
                model.zero_grad()
                seeded(step)
                ZOO[name].loss(model(*(torch.cat([part] * (step + 1)) for part in ZOO[name].batch()))).backward()
            found += [f"{name}, step {step}: {n}" for n in differences(mine, twin)]
            for p in [*mine.parameters(), *twin.parameters()]:
                if p.grad is not None:
                    p.data.sub_(p.grad * 0.1)
        if dist.get_rank() == 0:
            pairs = zip(mine.named_buffers(), twin.buffers(), strict=True)
            found += [f"{name}: {n}" for (n, b), c in pairs if not torch.equal(b, c)]
        compilation = attachment_of(mine).compilation  # type: ignore[union-attr]
        assert compilation is not None
        if compilation.program.front_end != front_end:
            found.append(f"{name} was captured by {compilation.program.front_end}")
        if any(bucket.route != "graph" for bucket in compilation.plan.buckets):
            found.append(f"{name} has a bucket that hooks fill")
    return found


def test_gradients_equal_ddp_on_two_ranks(ranks: Ranks) -> None:
    """Every gradient has DDP's bits, in batches of the size that was captured and of another."""
    assert ranks(training, 2) == [[], []]
