"""Draws random modules, each as the source of a file that can be run."""

from __future__ import annotations

import random
from collections.abc import Callable

__all__ = ["draw"]

WIDTH = 8

_FREEZABLE = ["layer0.weight", "layer1.bias", "layer2.weight"]
_HEAD = '''"""Drawn with seed {seed}. Run it to see whether the parallel model does what the plain one does."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 3


@dataclasses.dataclass
class Result:
    first: torch.Tensor
    rest: object = None

'''

_TAIL = """

def build():
    torch.manual_seed({seed})
    model = Model()
    for name, parameter in model.named_parameters():
        if name in {frozen}:
            parameter.requires_grad_(False)
    return model{mode}


def inputs(rows):
    x, y = torch.randn(rows, {width}), torch.randn(rows, {width})
    return {call}


if __name__ == "__main__":
    from tests.fuzz.check import check_file

    print(check_file(__file__) or "equal")
"""


def draw(seed: int) -> str:
    """The source of a random model; the same for the same seed."""
    return _Draw(seed).source()


class _Draw:
    def __init__(self, seed: int) -> None:
        self.seed, self.random = seed, random.Random(seed)
        self.classes: list[str] = []

    def source(self) -> str:
        for index in range(self.random.randint(0, 3)):
            self.classes.append(self._module(f"Block{index}", root=False))
        model = self._module("Model", root=True)
        tail = _TAIL.format(
            seed=self.seed,
            frozen=tuple(
                self.random.sample(["layer0.weight", "layer1.bias", "layer2.weight"], self.random.randint(0, 2))
            ),
            mode=self.random.choice(["", "", "", ".eval()"]),
            width=WIDTH,
            call=self.call,
        )
        return "\n\n".join([_HEAD.format(seed=self.seed), *self.classes, model]) + tail

    def _module(self, name: str, *, root: bool) -> str:
        self.setup: list[str] = []
        self.lines: list[str] = []
        self.values = ["x"]
        self.layers = 0
        arguments = self._arguments() if root else "x"
        steps = self.random.randint(3, 9) if root else self.random.randint(1, 4)
        for _ in range(steps):
            self.random.choice(_STEPS)(self)
        result = self._result() if root else self.values[-1]
        setup = "\n".join(f"        {line}" for line in self.setup)
        body = "\n".join(f"        {line}" for line in self.lines)
        return (
            f"class {name}(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
            f"        self.layer = nn.Linear({WIDTH}, {WIDTH})\n"
            f"        self.scale = 1.5\n        self.calls = 0\n{setup}\n\n"
            f"    def forward(self, {arguments}):\n{body}\n        return {result}\n"
        )

    def _arguments(self) -> str:
        kind = self.random.choice(["one", "two", "dict", "mask", "nested"])
        self.call = {
            "one": "(x,), {}",
            "two": "(x, y), {}",
            "dict": "({'a': x, 'b': [y, None]},), {}",
            "mask": f"(x,), {{'mask': torch.ones({WIDTH}) if rows % 2 else torch.arange({WIDTH}.0).clamp(max=1)}}",
            "nested": "((x, (y, 3)),), {'flag': True}",
        }[kind]
        if kind == "two":
            self.values.append("y")
            return "x, y"
        if kind == "dict":
            self.lines.append("x, y = batch['a'], batch['b'][0]")
            self.values.append("y")
            return "batch"
        if kind == "nested":
            self.lines += ["x, (y, times) = pair", "y = y * times"]
            self.values.append("y")
            return "pair, *, flag=False"
        if kind == "mask":
            self.lines.append("x = x if mask.all() else self.layer(x) * mask")
            return "x, mask"
        return "x"

    def _result(self) -> str:
        last, other = self.values[-1], self.random.choice(self.values)
        return self.random.choice([
            last, f"({last}, {other})", f"{{'a': {last}, 'n': 3, 'b': [{other}.sum(), None]}}",
            f"Result({last}, rest=({other},))", f"({last}, {last}.shape[0], 'text')",
        ])  # fmt: skip

    # steps -----------------------------------------------------------------------------------

    def value(self) -> str:
        """One of the values so far; late ones more often."""
        return self.random.choice([*self.values, self.values[-1], self.values[-1]])

    def new(self, expression: str) -> None:
        """A statement that makes another value."""
        name = f"v{len(self.values)}"
        self.lines.append(f"{name} = {expression}")
        self.values.append(name)

    def made(self, module: str) -> str:
        """A submodule of its own."""
        name = f"layer{self.layers}"
        self.layers += 1
        self.setup.append(f"self.{name} = {module}")
        return f"self.{name}"


def _linear(draw: _Draw) -> None:
    draw.new(f"{draw.made(f'nn.Linear({WIDTH}, {WIDTH})')}({draw.value()})")


def _reused(draw: _Draw) -> None:
    draw.new(f"torch.tanh(self.layer({draw.value()}))")


def _norm(draw: _Draw) -> None:
    kind = draw.random.choice([f"nn.BatchNorm1d({WIDTH})", f"nn.LayerNorm({WIDTH})", "nn.Dropout(0.3)", "nn.GELU()"])
    draw.new(f"{draw.made(kind)}({draw.value()})")


def _dropout(draw: _Draw) -> None:
    draw.new(f"F.dropout({draw.value()}, 0.4, self.training)")


def _combine(draw: _Draw) -> None:
    one, other = draw.value(), draw.value()
    draw.new(draw.random.choice([
        f"{one} + {other}", f"{one} * torch.sigmoid({other})",
        f"torch.cat([{one}, {other}], 1)[:, {WIDTH // 2}:-{WIDTH // 2}]",
        f"{one} - {other} / 2", f"torch.where({one} > 0, {one}, {other})", f"2 - {one} ** 2",
    ]))  # fmt: skip


def _reshape(draw: _Draw) -> None:
    value = draw.value()
    draw.new(f"{value}.view({value}.shape[0], 2, {WIDTH // 2}).transpose(1, 2).reshape({value}.size(0), -1)")


def _block(draw: _Draw) -> None:
    if not draw.classes:
        return _linear(draw)
    name = draw.random.choice(draw.classes).split("(")[0].removeprefix("class ")
    return draw.new(f"{draw.made(f'{name}()')}({draw.value()})")


def _tied(draw: _Draw) -> None:
    one = draw.made(f"nn.Linear({WIDTH}, {WIDTH})")
    other = draw.made(f"nn.Linear({WIDTH}, {WIDTH})")
    draw.setup.append(f"{other}.weight = {one}.weight")
    draw.new(f"{other}(F.relu({one}({draw.value()})))")


def _loop(draw: _Draw) -> None:
    value = draw.value()
    draw.new(f"sum(part * (i + 1) for i, part in enumerate({value}.chunk(2, dim=1))).repeat(1, 2)")


def _rows(draw: _Draw) -> None:
    value = draw.value()
    draw.new(f"torch.stack([{value}[i] * self.scale for i in range({value}.shape[0])])")


def _by_size(draw: _Draw) -> None:
    value = draw.value()
    draw.new(f"{value} * 2 if {value}.shape[0] > 3 else {value} - 1")


def _no_grad(draw: _Draw) -> None:
    value = draw.value()
    draw.lines += ["with torch.no_grad():", f"    fixed = self.layer({value}).softmax(1)"]
    draw.new(f"{value} * fixed")


def _in_place(draw: _Draw) -> None:
    draw.new(f"{draw.value()}.clone()")
    last = draw.values[-1]
    draw.lines += [f"{last}[:, 0] = 0", f"{last} += 1"]


def _custom(draw: _Draw) -> None:
    draw.new(f"Double.apply({draw.value()})")


def _noise(draw: _Draw) -> None:
    value = draw.value()
    draw.new(f"{value} + torch.rand_like({value}) * torch.randn({WIDTH})")


def _counts(draw: _Draw) -> None:
    draw.lines.append("self.calls += 1")
    draw.new(f"{draw.value()} * self.calls")


def _writes_buffer(draw: _Draw) -> None:
    name = f"seen{draw.layers}"
    draw.layers += 1
    draw.setup.append(f"self.register_buffer({name!r}, torch.zeros({WIDTH}))")
    draw.lines.append(f"self.{name}.add_({draw.value()}.detach().mean(0))")
    draw.new(f"{draw.value()} + self.{name}")


def _branches(draw: _Draw) -> None:
    value = draw.value()
    draw.new(f"self.layer({value}) if {value}.sum() > 0 else -{value}")


def _unused(draw: _Draw) -> None:
    draw.made(f"nn.Linear({WIDTH}, {WIDTH})")


_STEPS: list[Callable[[_Draw], None]] = [
    _linear, _linear, _reused, _norm, _norm, _dropout, _combine, _combine, _reshape, _block, _block, _tied, _loop,
    _rows, _by_size, _no_grad, _in_place, _custom, _noise, _counts, _writes_buffer, _branches, _unused,
]  # fmt: skip
