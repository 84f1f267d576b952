"""A model that raises does so with the frames of an eager call."""

# ruff: noqa: D102 - a forward is what its class says

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import autopar


class Inner(nn.Module):
    """Raises, in one of several ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.fc, self.how = nn.Linear(4, 4), how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "own":
            raise KeyError("mine")
        if self.how == "behind another":
            try:
                return self.fc(x[:, :3])
            except RuntimeError as error:
                raise ValueError("wrong width") from error
        if self.how == "in torch's Python code":
            return F.layer_norm(x, (5,))
        return self.fc(x[:, :3])


class Outer(nn.Module):
    """Calls it two modules deep."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Linear(4, 4), Inner(how))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


def frames(call: Callable[[], Any]) -> tuple[type, str, list[tuple[str, str, int | None]], int]:
    """What was raised with the frames from the user's outermost forward on, those of causes too; and ours."""
    try:
        call()
    except Exception as error:
        found, ours, one = [], 0, error
        while one is not None:
            lines = [(f.filename, f.name, f.lineno) for f in traceback.extract_tb(one.__traceback__)]
            start = next((i for i, line in enumerate(lines) if line[:2] == (__file__, "forward")), 0)
            found += lines[start:]
            ours += sum("/autopar/" in file for file, _, _ in lines)
            one = one.__cause__  # type: ignore[assignment]
        return type(error), str(error), found, ours
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("how", ["own", "in a layer", "in torch's Python code", "behind another"])
@pytest.mark.parametrize("way", ["first forward", "parallelize", "trace"])
def test_frames_are_eager_s(how: str, way: str) -> None:
    """Type, text and every frame from the user's forward on; of autopar's own there is the one that was called."""
    x = torch.randn(3, 4)
    model = Outer(how)
    *expected, _ = frames(lambda: Outer(how)(x))
    calls: dict[str, Callable[[], Any]] = {
        "first forward": lambda: autopar.parallelize(model, "ddp")(x),
        "parallelize": lambda: autopar.parallelize(model, "ddp", x),
        "trace": lambda: autopar.trace(model, x),
    }
    *found, ours = frames(calls[way])
    assert found == expected
    assert ours == 1


def test_all_frames_for_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of ours has to be found, too."""
    monkeypatch.setenv("AUTOPAR_DEBUG", "1")
    assert frames(lambda: autopar.trace(Outer("own"), torch.randn(3, 4)))[-1] > 5


def test_errors_of_ours_keep_their_frames() -> None:
    """They come from where they are raised."""
    with pytest.raises(autopar.errors.UnknownNameError) as caught:
        autopar.trace(nn.Linear(4, 4), torch.randn(3, 4), autopar_capture="exprot")
    assert [entry.name for entry in caught.traceback][-1] == "check_choice"
