"""Ranks on this host: processes that measure together over loopback, and what they measured."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from benchmarks.measuring import Settings, measure
from benchmarks.progress import Rounds
from benchmarks.variants import VARIANTS
from benchmarks.workloads import WORKLOADS

__all__ = ["Samples", "merge_ranks", "run_ranks"]

# Seconds of every step: workload, then variant, then one list for each round.
Samples = dict[str, dict[str, list[list[float]]]]


def run_ranks(workloads: list[str], settings: Settings) -> Samples:
    """Start the ranks, wait for them, return what they measured; no process or file stays behind.

    Raises:
        torch.multiprocessing.ProcessRaisedException: a rank failed; the text is its traceback.
    """
    with tempfile.TemporaryDirectory() as folder:
        spawn(_rank, (Path(folder), workloads, settings), nprocs=settings.world_size)
        samples: Samples = json.loads(Path(folder, "samples.json").read_text())
    return samples


def merge_ranks(ranks: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    """One round of all ranks as one: the mean over ranks of every step.

    Ranks that communicate take equal times anyway; for the variant that does not, the slower one
    of two would look like a cost of its own.

    >>> merge_ranks([{"plain": [1.0, 3.0]}, {"plain": [2.0, 3.0]}])
    {'plain': [1.5, 3.0]}
    """
    return {
        name: [sum(step) / len(ranks) for step in zip(*(rank[name] for rank in ranks), strict=True)]
        for name in ranks[0]
    }


def _rank(rank: int, folder: Path, workloads: list[str], settings: Settings) -> None:
    torch.set_num_threads(1)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=settings.world_size
    )
    samples: Samples = {}
    try:
        with Rounds(settings.rounds * len(workloads), silent=rank != 0) as progress:
            for name in workloads:
                progress.title = name
                samples[name] = {variant.name: [] for variant in VARIANTS}
                for local in measure(WORKLOADS[name], VARIANTS, settings):
                    ranks: list[dict[str, list[float]]] = [{}] * settings.world_size
                    dist.all_gather_object(ranks, local)
                    for variant, seconds in merge_ranks(ranks).items():
                        samples[name][variant].append(seconds)
                    progress.advance()
    finally:
        dist.destroy_process_group()
    if rank == 0:
        (folder / "samples.json").write_text(json.dumps(samples))
