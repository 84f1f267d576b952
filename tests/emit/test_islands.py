"""Islands in a printed file: a function each, installed as in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from autopar.emit.script import eager_forward
from autopar.islands import StandIn
from tests.capture.islands import Model, Nested, WholeLoop
from tests.emit.compiled import assert_equal, compiled, printed, step

FILE = Path(__file__).parents[1] / "capture" / "islands.py"


def test_printed_islands_equal_the_model_and_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nested ones, and those of a model that is opaque as a whole; another size or mode gets the forward itself."""
    served: list[bool] = []
    serves = StandIn.serves
    monkeypatch.setattr(StandIn, "serves", lambda *given: served.append(serves(*given)) or served[-1])
    for model, width, count in ((Model(Nested()), 4, 2), (WholeLoop(), 6, 2)):
        x = torch.randn(3, width)
        text, names = printed(compiled(model, (x,)), FILE, type(model).__name__)
        served.clear()  # the gate's
        assert text.count("@installing.island(") == count
        for rows, mode in ((3, True), (5, True), (3, False)):
            model.train(mode)
            inputs = (torch.randn(rows, width),)
            assert_equal(step(model, names["forward"], inputs, {}), step(model, eager_forward, inputs, {}))
            assert all(served) if mode else not any(served)
            assert len(served) == 2
            served.clear()
