"""A run with everything that a checkpoint must keep: dropout, AdamW, a schedule, shuffling, several epochs."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, Dataset

import autopar

__all__ = ["STEPS", "Outcome", "build", "train"]

SAMPLES, EPOCHS, GLOBAL_BATCH = 22, 3, 4
STEPS = EPOCHS * 6  # the last batch of an epoch is a smaller one


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a part of a run ended.

    Attributes:
        bits: of all parameters and the optimizer's state.
        read: the samples of every step of this rank, with three random numbers drawn there.
        plan: digest of the plan.
    """

    bits: bytes
    read: list[tuple[list[int], float, float, float]]
    plan: str


class _Numbered(Dataset[tuple[int, torch.Tensor]]):
    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor]:
        return index, torch.linspace(-1, 1, 6) * index


def build() -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """The model, before ``parallelize``, with its optimizer and schedule."""
    model = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    return model, optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=STEPS)


def train(path: Path, until: int, save_at: int | None = None) -> Outcome:
    """Goes on from the checkpoint in ``path``, if there is one, up to a step."""
    torch.manual_seed(0)
    model, optimizer, schedule = build()
    autopar.parallelize(model, "ddp", bucket_cap_mb=1e-4, first_bucket_mb=1e-4)
    size, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    for module in (torch.manual_seed, random.seed, numpy.random.seed):
        module(rank)
    data = DataLoader(_Numbered(), batch_size=GLOBAL_BATCH // size, shuffle=True)
    loader = autopar.shard(data, resumable=True)
    run = {"loader": loader, "extras": {"schedule": schedule}}
    resumed = autopar.load(model, optimizer, path, missing_ok=True, **run)
    step, read = resumed.step if resumed else 0, []
    while step < until:
        for indices, x in loader:
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
            schedule.step()
            step += 1
            read.append((indices.tolist(), random.random(), float(numpy.random.rand()), float(torch.rand(()))))
            if step == save_at:
                autopar.save(model, optimizer, path, step=step, **run)
            if step == until:
                break
    plan = model._autopar.compilation.plan.digest() if read else ""
    state = [*model.state_dict().values(), *(t for s in optimizer.state.values() for t in s.values())]
    return Outcome(b"".join(bytes(t.detach().contiguous().view(-1).view(torch.uint8)) for t in state), read, plan)
