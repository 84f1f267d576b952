"""The printed forward takes what the user's takes, and refuses what the graph is not exact for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.emit import models
from tests.emit.compiled import compiled, printed

FILE = Path(models.__file__)


def forward_of(case: str) -> tuple[torch.nn.Module, Any]:
    """A model and its printed forward."""
    cls, args, kwargs = models.CASES[case]
    model = cls()
    return model, printed(compiled(model, args, kwargs), FILE, cls.__name__)[1]["forward"]


def test_parameters_are_the_users() -> None:
    """Names, order, kinds and defaults."""
    cls, args, kwargs = models.CASES["keywords"]
    text, _ = printed(compiled(cls(), args, kwargs), FILE, "Keywords")
    assert "def forward(self, input, /, F, *, mask=None, scale=2.0, len=3):" in text


@pytest.mark.parametrize("wrong", [{"scale": 3.0}, {"scale": 2}, {"len": 3}, {"scale": torch.tensor(2.0)}])
def test_other_constants_are_refused(wrong: dict[str, Any]) -> None:
    """A graph that was made for scale=2.0 would be wrong for 3.0 without a word."""
    model, forward = forward_of("keywords")
    _, args, kwargs = models.CASES["keywords"]
    with pytest.raises(ValueError, match=r"exact for scale=2.0, len=2 only"):
        forward(model, *args, **{**kwargs, **wrong})


def test_other_structures_are_refused() -> None:
    """Another key, another length."""
    model, forward = forward_of("dict-input")
    _, (batch, pair), _ = models.CASES["dict-input"]
    for call in (({**batch, "more": 1}, pair), (batch, (*pair, pair[0])), ({**batch, "inner": [pair[0], 3]}, pair)):
        with pytest.raises(ValueError, match="exact for"):
            forward(model, *call)


def test_a_tensor_for_none_is_refused() -> None:
    """The graph does not have the branch that would use it."""
    model, forward = forward_of("keywords-default")
    with pytest.raises(ValueError, match="mask=None"):
        forward(model, models.x(), F=models.x(4), mask=models.x() > 0)
