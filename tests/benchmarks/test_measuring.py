"""Timing of blocks of steps, in one process without communication."""

import dataclasses

import torch

from benchmarks.measuring import Settings, measure
from benchmarks.ranks import merge_ranks
from benchmarks.variants import PLAIN, torch_ddp
from benchmarks.workloads import WORKLOADS

OTHER = dataclasses.replace(PLAIN, name="other")


def test_every_variant_has_its_turn_in_every_round() -> None:
    """Rounds and steps are as many as asked, and all times are positive."""
    rounds = list(measure(WORKLOADS["deep"], (PLAIN, OTHER), Settings(rounds=2, steps=3, warmup=1)))
    assert len(rounds) == 2
    for block in rounds:
        assert block.keys() == {"plain", "other"}
        assert all(len(seconds) == 3 and min(seconds) > 0 for seconds in block.values())


def test_variants_start_from_equal_copies() -> None:
    """Every variant wraps its own copy of one model, and the optimizer moves it."""
    models = []

    def keep(model: torch.nn.Module, inputs: torch.Tensor) -> torch.nn.Module:
        models.append((model, [parameter.detach().clone() for parameter in model.parameters()]))
        return model

    variants = [dataclasses.replace(PLAIN, name=name, wrap=keep) for name in ("a", "b")]
    list(measure(WORKLOADS["deep"], variants, Settings(rounds=1, steps=1, warmup=1, optimizer="sgd")))
    (one, start_one), (other, start_other) = models
    assert one is not other
    assert all(map(torch.equal, start_one, start_other))
    assert not torch.equal(list(one.parameters())[-1], start_one[-1])


def test_ranks_are_averaged_step_by_step() -> None:
    """The mean is over ranks, not over steps."""
    assert merge_ranks([{"a": [1.0, 2.0]}, {"a": [3.0, 6.0]}]) == {"a": [2.0, 4.0]}


def test_references_are_torchs_own() -> None:
    """ "DDP's best" is chosen among the three settings of torch's DDP."""
    assert torch_ddp() == ["ddp", "ddp-static", "ddp-one-bucket"]
