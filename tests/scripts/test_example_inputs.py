"""Inputs for a script's model: from shapes, from a function, from a call."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autopar.errors import ModelError, UsageError
from autopar.scripts.candidates import find_model
from autopar.scripts.example_inputs import find_inputs, parse_input

HEAD = "import torch\nfrom torch import nn\nmodel = nn.Linear(10, 1)\n"

Inputs = Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    """Finds the inputs of the linear layer in a script."""

    def inputs_in(text: str, *specs: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        path = tmp_path / "some.py"
        path.write_text(HEAD + textwrap.dedent(text))
        found = find_model(str(path), "model")
        return find_inputs(found.script, found.model, list(specs))

    return inputs_in


def drawn(spec: str) -> torch.Tensor:
    """The tensor of one spec."""
    return parse_input(spec, torch.Generator().manual_seed(0))


def test_shapes() -> None:
    """Shape, dtype and bound are taken from the text; the same text draws the same numbers."""
    assert (drawn("32x10").shape, drawn("32x10").dtype) == ((32, 10), torch.float32)
    assert drawn("4:bfloat16").dtype == torch.bfloat16
    assert drawn("1000:int64").max() == 9
    assert drawn("1000:int32:3").max() == 2
    assert set(drawn("100:bool").tolist()) == {True, False}
    assert torch.equal(drawn("8"), drawn("8"))


@pytest.mark.parametrize("spec", ["", "axb", "3x", "0x2", "-1x2", "2:int64:0", "2:int64:x", "2:float32:3", "2:a:b:c"])
def test_bad_shapes(spec: str) -> None:
    """A spec that cannot be read is a usage error that shows it."""
    with pytest.raises(UsageError) as caught:
        drawn(spec)
    assert caught.value.exit_code == 2


def test_unknown_dtype() -> None:
    """An unknown dtype suggests the nearest one."""
    with pytest.raises(UsageError, match=r"no dtype named 'floot32'. Did you mean 'float32'"):
        drawn("2:floot32")


def test_specs_come_first(inputs: Inputs) -> None:
    """Given shapes are used, one for each argument, whatever the file has."""
    args, kwargs = inputs("def example_inputs(): return torch.ones(1)", "2x10", "3:int64")
    assert ([tuple(a.shape) for a in args], kwargs) == ([(2, 10), (3,)], {})


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1 * x", "(x,), {}"), ("(x, 2)", "(x, 2), {}"), ("{'input': x}", "(), {'input': x}")],
)
def test_function(inputs: Inputs, value: str, expected: str) -> None:
    """A tensor is one argument, a tuple several, a dict the keyword arguments."""
    found = inputs(f"def example_inputs():\n    x = torch.ones(1, 10)\n    return {value}")
    assert str(found) == str(eval(expected, {"x": torch.ones(1, 10)}))


@pytest.mark.parametrize(
    "call",
    ["out = model(x * 2)", "loss = out = model(input=x * 2).sum()", "for i in range(3): model(x * 2).backward()"],
)
def test_call_in_the_script(inputs: Inputs, call: str) -> None:
    """A module-level call of the model gives its arguments, without running it."""
    args, kwargs = inputs(f"x = torch.ones(4, 10)\n{call}\nx = torch.ones(5, 5)")
    (found,) = [*args, *kwargs.values()]
    assert torch.equal(found, torch.full((4, 10), 2.0))


def test_none(inputs: Inputs) -> None:
    """Without inputs anywhere, the three ways are named."""
    with pytest.raises(UsageError, match=r"No inputs .*--input SHAPE.*example_inputs\(\).*call the model once"):
        inputs("")


def test_call_that_cannot_be_evaluated(inputs: Inputs) -> None:
    """Why a call in the file could not be used is part of the error."""
    with pytest.raises(UsageError, match=r"some\.py:4: `x = open.*FileNotFoundError.*--input"):
        inputs("x = open('/does/not/exist')\nmodel(x)")
    with pytest.raises(UsageError, match=r"some\.py:4: x is bound inside a block"):
        inputs("for x in range(3): model(x)")


def test_function_with_a_wrong_result(inputs: Inputs) -> None:
    """Anything but a tensor, a tuple or a dict is refused."""
    with pytest.raises(ModelError, match=r"example_inputs \(some.py:4\) returned something of type list"):
        inputs("def example_inputs(): return [1]")


def test_function_with_arguments(inputs: Inputs) -> None:
    """A function that needs arguments cannot be called."""
    with pytest.raises(ModelError, match="no function without arguments"):
        inputs("def example_inputs(batch): return 1")
