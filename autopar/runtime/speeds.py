"""How fast the ranks compute and send, measured once at the start, for the cost model of the buckets."""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from autopar.partitioner.rates import Rates
from autopar.runtime.agreement import text_from_rank
from autopar.runtime.collectives import Collectives
from autopar.runtime.group import Group

__all__ = ["BUDGET", "measured_rates"]

BUDGET = 0.2  # seconds in all
_COMPUTING = 0.06  # of them, for what a rank does by itself
_REPEATS = 5
_SIDE = 256  # of the matrices that are multiplied
_SMALLEST, _LARGEST, _FACTOR = 1 << 12, 1 << 23, 1 << 3  # bytes of the messages; each is so much larger than the last
_known: dict[str, Rates] = {}  # by topology, on rank 0


def measured_rates(group: Group, collectives: Collectives, device: torch.device) -> Rates:
    """Rank 0's figures, on all ranks; called on all of them at the same point.

    All ranks compute and send at the same time, as they do in training, so that what they share (cores,
    memory, the wire) is shared here. Rank 0 keeps the result for its topology as long as the process lives.

    Args:
        group: the ranks, more than one.
        collectives: what carries their messages.
        device: where they compute.

    Raises:
        RankLostError: a rank did not come.
    """
    topology = f"{type(collectives).__name__}, {group}, {device.type}, {torch.get_num_threads()} threads"
    known = _known.get(topology) if group.rank == 0 else None
    answer = text_from_rank(group, json.dumps(known and known.to_json()), rank=0)
    if answer == "null":
        mine = _measure(group, collectives, device)
        answer = text_from_rank(group, json.dumps(mine.to_json()), rank=0)
    rates = Rates.from_json(json.loads(answer))
    if group.rank == 0:
        _known[topology] = rates
    return rates


def _measure(group: Group, collectives: Collectives, device: torch.device) -> Rates:
    start = time.perf_counter()
    with torch.inference_mode(False), torch.enable_grad():
        rates = _computing(device, until=start + _COMPUTING)
        sizes = _Messages(group, collectives, device, until=start + BUDGET)
        times = dict(sizes.measure())
        rates = rates.with_messages(times, ranks=group.world_size)
        largest = max(times)
        overlap = sizes.overlap(largest, times[largest], rates)
    return dataclasses.replace(rates, overlap=overlap, origin="measured")


def _computing(device: torch.device, *, until: float) -> Rates:
    count, layers = 1 << 20, 8
    # No random numbers: the user's streams must be where they were.
    square, floats = torch.ones(_SIDE, _SIDE, device=device), torch.ones(count, device=device)
    beside = torch.empty_like(floats)
    weights = [torch.full((8, 8), 0.1, device=device, requires_grad=True) for _ in range(layers)]
    batch = torch.ones(4, 8, device=device)

    def tiny_step() -> None:
        x = batch
        for weight in weights:
            x = F.relu(F.linear(x, weight))
        torch.autograd.grad(x.sum(), weights)

    work: list[Callable[[], object]] = [lambda: square @ square, lambda: beside.copy_(floats), tiny_step]
    share = (until - time.perf_counter()) / len(work)
    product, copy, step = (_typical(one, device, seconds=share) for one in work)
    # Forward and, mostly twice as much, backward: as many operations as the predictor counts.
    operations = 2 * layers + 3 * layers - 1 + layers
    return dataclasses.replace(
        Rates.assumed(device.type),
        flops=2 * _SIDE**3 / product,
        memory=2 * floats.nbytes / copy,
        operation=step / operations,
    )


class _Messages:
    """All-reduces of growing size, in step on all ranks: rank 0's clock says when to stop."""

    def __init__(self, group: Group, collectives: Collectives, device: torch.device, *, until: float) -> None:
        self.group, self.collectives, self.device, self.until = group, collectives, device, until

    def measure(self) -> Iterator[tuple[int, float]]:
        """Bytes and seconds: at least of two sizes, then of more as long as there is time."""
        nbytes, measured = _SMALLEST, 0
        while nbytes <= _LARGEST:
            flat = self._message(nbytes)
            seconds = statistics.median(self._send(flat) for _ in range(_REPEATS))
            yield nbytes, seconds
            measured += 1
            if not self._goes_on(measured < 2, expected=(_REPEATS + 1) * _FACTOR * seconds):
                return
            nbytes *= _FACTOR

    def overlap(self, nbytes: int, alone: float, rates: Rates) -> float:
        """The share of a message in which this rank computes on."""
        flat = self._message(nbytes)
        square = torch.ones(_SIDE, _SIDE, device=self.device)
        repeats = max(1, round(alone * rates.flops / (2 * _SIDE**3)))

        def compute() -> None:
            for _ in range(repeats):
                torch.mm(square, square)

        apart = _typical(compute, self.device, seconds=0.0)
        both = min(self._send(flat, compute) for _ in range(2))
        return min(1.0, max(0.0, (apart + alone - both) / min(apart, alone)))

    def _message(self, nbytes: int) -> torch.Tensor:
        flat = self.collectives.empty(nbytes // 4, torch.float32, self.device).zero_()
        self._send(flat)  # the first one maps memory and opens connections
        return flat

    def _send(self, flat: torch.Tensor, meanwhile: Callable[[], None] | None = None) -> float:
        _settle(self.device)
        start = time.perf_counter()
        work = self.collectives.all_reduce(flat, "measuring the speed of messages")
        if meanwhile is not None:
            meanwhile()
        work.wait()
        _settle(self.device)
        return time.perf_counter() - start

    def _goes_on(self, certainly: bool, *, expected: float) -> bool:
        mine = "on" if certainly or time.perf_counter() + expected < self.until else "off"
        return text_from_rank(self.group, mine, rank=0) == "on"


def _typical(run: Callable[[], object], device: torch.device, *, seconds: float) -> float:
    """The median time of ``run`` over as many calls as fit, three at least, after one that warms up."""
    run()
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < 3 or (time.perf_counter() < end and len(found) < 50):
        _settle(device)
        start = time.perf_counter()
        run()
        _settle(device)
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def _settle(device: torch.device) -> None:
    """Waits for the device where calls only queue work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
