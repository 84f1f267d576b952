"""The strategy ``data_parallel``: options, pipeline text, and that it starts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from autopar.errors import OptionError
from autopar.passes.pipeline import build, parse
from autopar.passes.preserving.replicate import Replicate
from autopar.strategies import DataParallel, Strategy, resolve


def test_it_is_a_strategy_known_by_name() -> None:
    """``strategy="data_parallel"`` finds the class, with its options."""
    strategy = resolve("data_parallel", {"replicas": 3})
    assert strategy == DataParallel(replicas=3)
    assert isinstance(strategy, Strategy)


def test_the_pipeline_carries_every_option_that_is_not_the_default() -> None:
    """The text builds a pass with the strategy's options."""
    strategy = DataParallel(devices=[torch.device("cpu"), "cuda:1", 2], dim=1, gather="torch")
    (replicate,) = [one for one in build(parse(strategy.pipeline())) if isinstance(one, Replicate)]
    assert replicate == Replicate(devices="cpu,cuda:1,cuda:2", dim=1, gather="torch")


def test_the_default_pipeline_leaves_the_decision_to_the_model() -> None:
    """Without options nothing stands in braces."""
    assert DataParallel().pipeline() == "inline-modules,shapes,replicate,lift-parameters"


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"replicas": 0}, "replicas is 0"),
        ({"dim": -1}, "dim is -1"),
        ({"gather": "sum"}, "gather is 'sum'"),
        ({"devices": ["cpu"], "replicas": 2}, "1 devices for 2 replicas"),
        ({"devices": []}, "0 devices"),
        ({"devices": ["gpu"]}, "'gpu' is no device"),
    ],
)
def test_a_bad_option_is_refused(options: dict[str, Any], fact: str) -> None:
    """Each with the value in the text."""
    with pytest.raises(OptionError, match=fact):
        DataParallel(**options)


def test_two_replicas_on_the_cpu_by_default() -> None:
    """Whatever the number of cores."""
    executor = DataParallel().start(nn.Linear(2, 2))
    assert (executor.world_size, executor.replicas) == (1, 2)


def test_devices_give_the_number_of_replicas() -> None:
    """One device twice makes two replicas there."""
    assert DataParallel(devices=["cpu"] * 3).start(nn.Linear(2, 2)).replicas == 3
