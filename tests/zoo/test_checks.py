"""The checks themselves: they find what is planted, and a failing model does not take the others along."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import autopar
from tests.zoo import front_ends, one_process
from tests.zoo.arrivals import exchanged
from tests.zoo.difference import LIMIT, ulps
from tests.zoo.entry import Entry
from tests.zoo.measures import measure
from tests.zoo.registry import ZOO
from tests.zoo.survey import survey

_ROOT = Path(__file__).parents[2]
_TINY = Entry(name="tiny", library="torch", build=lambda: nn.Linear(4, 2), inputs=lambda size: (torch.randn(size, 4),))


def test_a_wrong_gradient_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gradient that is off by a hundred-thousandth is over the limit, and named."""
    right = autopar.parallelize

    def wrong(model: nn.Module, *args: Any, **options: Any) -> nn.Module:
        model.weight.register_hook(lambda gradient: gradient * (1 + 1e-5))  # type: ignore[union-attr]
        return right(model, *args, **options)

    monkeypatch.setattr(autopar, "parallelize", wrong)
    difference = one_process.check(_TINY).difference
    assert difference.ulps > LIMIT
    assert difference.where == "gradient of weight"


def test_a_missing_gradient_is_found() -> None:
    """None is not zero."""
    assert ulps(None, torch.zeros(2)) == float("inf")


def test_other_random_numbers_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that leaves torch's random stream elsewhere differs."""
    right = autopar.parallelize

    def wrong(model: nn.Module, *args: Any, **options: Any) -> nn.Module:
        model.register_forward_hook(lambda *_: torch.rand(1) and None)
        return right(model, *args, **options)

    monkeypatch.setattr(autopar, "parallelize", wrong)
    assert one_process.check(_TINY).difference.where == "torch's random numbers"


class _Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.linear(x, self.fc.weight, self.fc.bias)  # no call of a module, which would be an island
        return x if x.sum() > 0 else -x


def test_share_leaves_out_what_an_opaque_call_owns() -> None:
    """Of 20 and 10 parameters, those of the layer behind the branch are at operation level."""
    measures = measure(autopar.trace(nn.Sequential(_Branch(), nn.Linear(4, 2)), torch.randn(3, 4)))
    assert (measures.parameters, measures.opaque_bytes) == (30, 80)
    assert measures.operation_level == pytest.approx(1 / 3)
    assert [call.path for call in measures.opaque] == ["0"]


def test_a_tied_parameter_inside_an_opaque_call_does_not_count() -> None:
    """An operation reads it as well, but the opaque call's use is out of sight."""
    model = nn.Sequential(_Branch(), nn.Linear(4, 4))
    model[1].weight = model[0].fc.weight  # type: ignore[union-attr, assignment]
    assert measure(autopar.trace(model, torch.randn(3, 4))).opaque_bytes == 80


def _fragile(entry: Entry) -> str:
    if entry.name == "gpt2":
        os._exit(3)
    if entry.name == "llama":
        raise ValueError("no llamas")
    return entry.name


def test_a_failing_model_does_not_take_others_along() -> None:
    """Models before and after one that dies and one that raises have their results; the two say how."""
    names = ["bert", "gpt2", "vit", "llama", "t5"]
    found = {one.name: one for one in survey(_fragile, names, 1)}
    assert {name: list(found[name].results) for name in ("bert", "vit", "t5")} == {
        n: [n] for n in ("bert", "vit", "t5")
    }
    assert "died with exit code 3" in found["gpt2"].failure
    assert "no llamas" in found["llama"].failure


def test_listing_imports_no_library() -> None:
    """Names, tags and sizes are there at once; only building a model imports where it comes from."""
    code = "import sys; from tests.zoo.registry import ZOO; print(len(ZOO), 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=_ROOT)
    assert done.stdout.split() == [str(len(ZOO)), "False"]


def test_gradients_in_another_order_are_found() -> None:
    """Every pair that is the wrong way round."""
    assert exchanged(["a", "b", "c", "d"], ["a", "c", "b"]) == [("c", "b")]


def test_gradients_that_nobody_expected_are_found() -> None:
    """Such a parameter would be in no bucket."""
    with pytest.raises(KeyError):
        exchanged(["a"], ["b"])


def test_front_ends_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """Taken ones with their time, the others by their reason."""
    assert front_ends.main("symbolic", ["torch-checkpoint", "torch-transformer-encoder"]) == 0
    out = capsys.readouterr().out
    assert "torch-transformer-encoder: taken (" in out
    assert "symbolic takes 2 of 2 models" in out
    assert front_ends.check(_TINY, "export").reason == ""
    assert "cannot capture" in front_ends.check(dataclasses.replace(_TINY, build=lambda: _Branch()), "export").reason
