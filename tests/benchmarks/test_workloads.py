"""The registry of workloads."""

import pytest
from torch import nn

from benchmarks.workloads import WORKLOADS, Named, select


@pytest.mark.parametrize("name", WORKLOADS)
def test_workload_trains(name: str) -> None:
    """The batch fits the model and the loss, and every parameter gets a gradient."""
    if WORKLOADS[name].absent:
        pytest.skip(WORKLOADS[name].absent)
    loaded = Named(name).load()
    args, kwargs = loaded.call
    loaded.loss_of(loaded.model(*args, **kwargs)).backward()
    assert all(parameter.grad is not None for parameter in loaded.model.parameters())


def test_sizes_are_those_of_the_names() -> None:
    """Layers and parameters are as the summaries say."""
    kinds = {name: [type(module) for module in WORKLOADS[name].build().modules()] for name in ("deep", "conv")}
    assert kinds["deep"].count(nn.Linear) == 64
    assert kinds["conv"].count(nn.Conv2d) == kinds["conv"].count(nn.BatchNorm2d) == 14
    assert sum(p.numel() for p in WORKLOADS["wide"].build().parameters()) == 25_175_040


def test_select_names_what_is_unknown() -> None:
    """A wrong name is an error that lists the right ones."""
    with pytest.raises(ValueError, match=r"no workload 'depp'\. Known: deep, wide, gpt, conv, bert, vit, resnet\."):
        select("wide,depp")
