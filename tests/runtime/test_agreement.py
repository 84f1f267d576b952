"""The start: ranks that do not hold the same thing stop alike, before the first step."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import autopar
from autopar.errors import AutoparError, RankMismatchError
from tests.runtime.pairs import Ranks


def _odd() -> bool:
    return os.environ["RANK"] == "1"


def _other_shape() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5 if _odd() else 4))


def _other_dtype() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4, dtype=torch.float64 if _odd() else torch.float32))


def _other_strides() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 2))
    return model.to(memory_format=torch.channels_last) if _odd() else model


def _other_order() -> nn.Module:
    names = ("b", "a") if _odd() else ("a", "b")
    return nn.ModuleDict({name: nn.Linear(3, 3) for name in names})


def _frozen_there() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2))
    model[0].weight.requires_grad_(not _odd())  # type: ignore[union-attr]
    return model


def _more_parameters() -> nn.Module:
    return nn.Sequential(*[nn.Linear(3, 3) for _ in range(2 if _odd() else 1)])


def _other_buffer() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3))
    model.register_buffer("scale", torch.ones(2 if _odd() else 1))
    return model


_MODELS: dict[str, tuple[Callable[[], nn.Module], str, str, str]] = {
    "shape": (_other_shape, "parameter 0", "'0.weight' float32[4, 6]", "'0.weight' float32[5, 6]"),
    "dtype": (_other_dtype, "parameter 0", "float32[4, 6]", "float64[4, 6]"),
    "strides": (_other_strides, "parameter 0", "strides [12, 4, 2, 1]", "strides [12, 1, 6, 3]"),
    "order": (_other_order, "parameter 0", "'a.weight'", "'b.weight'"),
    "requires_grad": (_frozen_there, "parameter 0", "trainable", "frozen"),
    "count": (_more_parameters, "parameter 2", "nothing", "'1.weight'"),
    "buffers": (_other_buffer, "buffer 0", "'scale' float32[1]", "'scale' float32[2]"),
}


def text_of(case: str) -> str:
    """The error's text on this rank."""
    model = _MODELS[case][0]()
    with pytest.raises(RankMismatchError) as caught:
        autopar.parallelize(model, "ddp")
    assert "autopar" not in type(model).__module__, "the model is left as it was"
    return str(caught.value)


@pytest.mark.parametrize("case", _MODELS)
def test_different_models_stop_every_rank_with_the_same_text(ranks: Ranks, case: str) -> None:
    """The text names the item, both ranks and both values, and is the same everywhere."""
    _, item, first, second = _MODELS[case]
    one, other, third = ranks(text_of, 3, case)
    assert one == other == third
    assert f"{item} is " in one
    left, right = one.split(" on rank 0 and ")
    assert first in left
    assert second in right
    assert " on rank 1." in right


def text_for_options() -> str:
    """The error's text when rank 1 has another bucket size."""
    with pytest.raises(RankMismatchError) as caught:
        autopar.parallelize(nn.Linear(3, 3), "ddp", bucket_cap_mb=1 if _odd() else 25)
    return str(caught.value)


def test_different_options_stop_every_rank(ranks: Ranks) -> None:
    """Options are compared, too."""
    one, other = ranks(text_for_options, 2)
    assert one == other
    assert "option 'bucket_cap_mb' is 25 on rank 0 and 1 on rank 1" in one


class _Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.other_way = nn.Linear(3, 3), _odd()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.fc(x)) if self.other_way else torch.relu(self.fc(x))


def text_for_graphs() -> str:
    """The error's text when the ranks' forwards take different branches."""
    model = autopar.parallelize(_Branch(), "ddp")
    with pytest.raises(RankMismatchError) as caught:
        model(torch.randn(2, 3))
    return str(caught.value)


def test_different_graphs_stop_every_rank(ranks: Ranks) -> None:
    """The first line of the graphs that differs is shown with both versions."""
    one, other = ranks(text_for_graphs, 2)
    assert one == other
    assert "different graphs" in one
    assert "relu" in one.split(" on rank 0, ")[0]
    assert "tanh" in one.split(" on rank 0, ")[1]


def error_of_failing_capture() -> tuple[str, str]:
    """Type and text of what each rank raises when only rank 1's input is wrong."""
    model = autopar.parallelize(nn.Sequential(nn.Linear(3, 3)), "ddp")
    try:
        model(torch.randn(2, 4 if _odd() else 3))
    except Exception as error:
        model(torch.randn(2, 3)).sum().backward()  # and all of them can go on
        return type(error).__name__, str(error)
    return "", ""


def test_a_rank_that_cannot_compile_stops_the_others(ranks: Ranks) -> None:
    """It raises its own error; the others say which rank it was, and why."""
    (kind, text), (own, _), (third, _) = ranks(error_of_failing_capture, 3)
    assert own == "RuntimeError"
    assert kind == third == "RankMismatchError"
    assert text.startswith("Rank 1 could not compile the model: RuntimeError: ")
    assert "shapes cannot be multiplied" in text


class _AllDtypes(nn.Module):
    def __init__(self, value: int) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        nn.init.constant_(self.fc.weight, value)
        nn.init.constant_(self.fc.bias, value)
        self.wave = nn.Parameter(torch.full((2,), complex(value, -value)))
        for dtype in (torch.bool, torch.int8, torch.int64, torch.uint16, torch.bfloat16, torch.float16, torch.float64):
            self.register_buffer(
                f"buffer_{len(self._buffers)}",
                torch.full((2, 3), value, dtype=dtype),
            )
        self.register_buffer("transposed", torch.full((2, 3), float(value)).t())
        self.register_buffer("nothing", torch.empty(0, 3))


def values_after_start() -> bool:
    """Whether all state is rank 0's."""
    model = autopar.parallelize(_AllDtypes(0 if _odd() else 1), "ddp")
    expected = _AllDtypes(1)
    mine, theirs = model.state_dict(), expected.state_dict()
    return all(torch.equal(mine[name], theirs[name]) for name in theirs) and mine["transposed"].stride() == (1, 3)


def test_every_rank_starts_with_the_values_of_rank_0(ranks: Ranks) -> None:
    """Parameters and buffers of every dtype and layout are copied."""
    assert ranks(values_after_start, 2) == [True, True]


def error_when_alone() -> Any:
    """What rank 0 raises when rank 1 goes away between joining and comparing."""
    if _odd():
        from autopar.runtime.group import join

        join(torch.device("cpu"), timeout=20.0)
        os._exit(0)
    try:
        autopar.parallelize(nn.Linear(3, 3), "ddp", timeout=20.0)
    except AutoparError as error:
        return type(error).__name__, str(error)
    return "no error"


def test_a_rank_that_goes_away_at_the_start(ranks: Ranks) -> None:
    """The others say what they were doing."""
    kind, text = ranks(error_when_alone, 2, lost=[1])[0]
    assert kind == "RankLostError"
    assert "Rank 0 of 2 lost the others at the comparison of the ranks" in text
