"""Each kind of node in its own notation."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import fx

from autopar.emit import emit_forward
from autopar.errors import ModelError
from tests.emit.handmade import unary

inf = math.inf
Build = Callable[[fx.Graph, fx.Node, fx.Node], fx.Node]


def function(target: Any, *args: Any, **kwargs: Any) -> Build:
    """A call of a function on x and further arguments."""
    return lambda graph, x, weight: graph.call_function(target, (x, *args), kwargs)


def method(target: str, *args: Any, **kwargs: Any) -> Build:
    """A call of a method of x."""
    return lambda graph, x, weight: graph.call_method(target, (x, *args), kwargs)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (function(F.linear, None), "F.linear(x, None)"),
        (function(torch._C._nn.gelu), "F.gelu(x)"),
        (function(torch.relu), "torch.relu(x)"),
        (function(torch.conv2d), "F.conv2d(x)"),
        (function(torch.special.expit), "torch.special.expit(x)"),
        (function(torch.fft.fft, dim=-1), "torch.fft.fft(x, dim=-1)"),
        (function(torch.Tensor.addcmul_), "torch.Tensor.addcmul_(x)"),
        (function(torch.ops.aten.add.Tensor, 1), "torch.ops.aten.add.Tensor(x, 1)"),
        (function(math.sqrt), "math.sqrt(x)"),
        (function(len), "len(x)"),
        (function(operator.neg), "-x"),
        (function(operator.pow, -2), "x**-2"),
        (function(operator.not_), "not x"),
        (function(operator.matmul, 1), "x @ 1"),
        (function(operator.contains, 1), "operator.contains(x, 1)"),
        (function(operator.getitem, (slice(None), ..., None, slice(1, -1, 2))), "x[:, ..., None, 1:-1:2]"),
        (function(operator.getitem, slice(None, 3)), "x[:3]"),
        (function(operator.getitem, ()), "x[()]"),
        (function(operator.getitem, (0,)), "x[(0,)]"),
        (function(getattr, "shape"), "x.shape"),
        (function(getattr, "a b"), 'getattr(x, "a b")'),
        (method("view", -1, (2, 3)), "x.view(-1, (2, 3))"),
        (method("to", torch.half, device=torch.device("cpu")), 'x.to(torch.float16, device=torch.device("cpu"))'),
        (method("fill", inf), 'x.fill(float("inf"))'),
        (method("fill", -0.0), "x.fill(-0.0)"),
        (method("fill", complex(0, inf)), 'x.fill(complex(0.0, float("inf")))'),
        (method("size", [1, {"a": (2,)}], b"x"), "x.size([1, {\"a\": (2,)}], b'x')"),
        (method("f", **{"a-b": 1, "c": 2}), 'x.f(c=2, **{"a-b": 1})'),
        (method("f", torch.strided, torch.preserve_format), "x.f(torch.strided, torch.preserve_format)"),
        (method("a b", 1), 'getattr(x, "a b")(1)'),
    ],
)  # fmt: skip
def test_notation(build: Build, expected: str) -> None:
    """The right-hand side of one node."""
    assert emit_forward(unary(build)).splitlines()[1].removeprefix("    return ") == expected


def test_power_of_a_negative_number_keeps_its_brackets() -> None:
    """``-2**x`` would be something else."""
    text = emit_forward(unary(lambda graph, x, weight: graph.call_function(operator.pow, (-2, x))))
    assert "return (-2) ** x\n" in text


def test_item_assignment_is_a_statement() -> None:
    """And stands before what comes after it."""

    def build(graph: fx.Graph, x: fx.Node, weight: fx.Node) -> fx.Node:
        clone = graph.call_method("clone", (x,))
        graph.call_function(operator.setitem, (clone, (slice(None), 0), weight))
        return graph.call_method("neg", (clone,))

    assert "    clone[:, 0] = self.weight\n    return clone.neg()\n" in emit_forward(unary(build))


def test_an_in_place_operator_keeps_both_values_apart() -> None:
    """Its result has another variable than its operand, which may still be used."""

    def build(graph: fx.Graph, x: fx.Node, weight: fx.Node) -> fx.Node:
        changed = graph.call_function(operator.iadd, (x, weight))
        return graph.call_function(torch.add, (changed, x))

    text = emit_forward(unary(build))
    assert "    iadd = operator.iadd(x, self.weight)\n    return torch.add(iadd, x)\n" in text


def test_effects_without_a_result_are_kept() -> None:
    """A call that nobody uses may draw random numbers or write in place; an operator needs a name."""

    def build(graph: fx.Graph, x: fx.Node, weight: fx.Node) -> fx.Node:
        graph.call_method("add_", (x, 1))
        graph.call_function(operator.add, (x, 1))
        return x

    assert emit_forward(unary(build)).splitlines()[1:] == ["    x.add_(1)", "    add = x + 1", "    return x"]


def test_a_function_without_a_name_is_refused() -> None:
    """Lambdas and functions inside functions have no import."""
    with pytest.raises(ModelError, match=r"<lambda>, which a printed file cannot import.*top of a module"):
        emit_forward(unary(function(lambda x: x)))


def test_a_constant_without_a_form_is_refused() -> None:
    """A generator, say."""
    with pytest.raises(ModelError, match="constant of type Generator"):
        emit_forward(unary(function(torch.relu, torch.Generator())))
