"""Timing of blocks of steps, in one process without communication."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from autopar.benchmarking.columns import COLUMNS, PLAIN, references, select_columns
from autopar.benchmarking.measuring import Settings, Steppers
from autopar.benchmarking.memory import peak_bytes
from autopar.errors import OptionError
from autopar.verification.sources import Loaded
from autopar.verification.training import Call

OTHER = dataclasses.replace(PLAIN, name="other")


def _loaded() -> Loaded:
    torch.manual_seed(0)
    return Loaded(nn.Linear(4, 2), ((torch.randn(3, 4),), {}), lambda output: output.sum(), "Linear")


def test_every_column_has_its_turn_in_every_round() -> None:
    """Rounds and steps are as many as asked, and all times are positive."""
    rounds = list(Steppers(_loaded(), (PLAIN, OTHER), Settings(rounds=2, steps=3, warmup=1)).rounds())
    assert len(rounds) == 2
    for block in rounds:
        assert block.keys() == {"plain", "other"}
        assert all(len(seconds) == 3 and min(seconds) > 0 for seconds in block.values())


def test_columns_start_from_equal_copies() -> None:
    """Every column wraps its own copy of one model, and the optimizer moves it."""
    models = []

    def keep(model: nn.Module, call: Call) -> nn.Module:
        models.append((model, [parameter.detach().clone() for parameter in model.parameters()]))
        return model

    columns = [dataclasses.replace(PLAIN, name=name, wrap=keep) for name in ("a", "b")]
    list(Steppers(_loaded(), columns, Settings(rounds=1, steps=1, warmup=1, optimizer="sgd")).rounds())
    (one, start_one), (other, start_other) = models
    assert one is not other
    assert all(map(torch.equal, start_one, start_other))
    assert not torch.equal(next(one.parameters()), start_one[0])


def test_a_column_that_cannot_train_the_model_is_left_out() -> None:
    """With the reason; the others are measured."""

    def fail(model: nn.Module, call: Call) -> nn.Module:
        raise ValueError("no batch dim\nand more")

    steppers = Steppers(_loaded(), (PLAIN, dataclasses.replace(OTHER, wrap=fail)), Settings(rounds=1, warmup=1))
    assert steppers.skipped == {"other": "ValueError: no batch dim"}
    assert next(steppers.rounds()).keys() == {"plain"}


def test_a_column_alone_has_the_threads_of_all_ranks() -> None:
    """And only while its steps run."""
    seen = []

    def look(model: nn.Module, call: Call) -> nn.Module:
        model.register_forward_hook(lambda module, args, output: seen.append(torch.get_num_threads()))
        return model

    before = torch.get_num_threads()
    Steppers(_loaded(), (dataclasses.replace(PLAIN, wrap=look, alone=True),), Settings(warmup=1, nproc=before + 1))
    assert (seen, torch.get_num_threads()) == ([before + 1], before)


def test_references_are_torchs_own() -> None:
    """ "DDP's best" is chosen among the three settings of torch's DDP, or among the two ways to compile it."""
    assert references(COLUMNS, compiled=False) == ["ddp", "ddp-static", "ddp-one-bucket"]
    assert references(COLUMNS, compiled=True) == ["compiled-ddp", "ddp-of-compiled"]


def test_columns_by_name() -> None:
    """The plain one is always there, since all others are compared with it."""
    assert [column.name for column in select_columns("autopar,ddp")] == ["plain", "ddp", "autopar"]
    with pytest.raises(OptionError, match=r"no column 'pdd'\. Known: plain, ddp, "):
        select_columns("pdd")


def test_peak_counts_what_a_step_holds() -> None:
    """64 MiB that a step needs, and nothing of what was freed before."""
    large = torch.ones(256 << 18)  # 256 MiB, freed before anything is measured
    del large
    idle = peak_bytes(lambda: None, warmup=1, steps=1)
    if idle is None:
        pytest.skip("this system keeps no account of peak memory")
    busy = peak_bytes(_hold, warmup=1, steps=1)
    assert busy is not None
    assert 48 << 20 < busy - idle < 128 << 20


def _hold() -> None:
    torch.ones(64 << 18)
