# ruff: noqa: D102 - what each forward is for stands at its class
"""Activation checkpoints: their operations are nodes, and backward computes them again as in eager."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import autopar
from autopar.capture.ladder import capture
from autopar.program import Program, info
from autopar.regions import outlined, region_modules
from tests.opaque import kept_whole


class Block(nn.Module):
    """A residual block whose result depends on random numbers and on statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm, self.drop = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.drop(torch.relu(self.norm(self.fc(x))))


class Net(nn.Module):
    """Checkpointed blocks between plain layers."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.blocks, self.head, self.settings = nn.ModuleList(Block() for _ in range(3)), nn.Linear(8, 2), settings

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False, **self.settings)
        return self.head(x)


class Aside(nn.Module):
    """A checkpoint of a function that leaves something beside its result, and takes from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), kept_whole(nn.Linear(8, 8))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scale, aside = x.mean(), []

        def function(x: torch.Tensor, *, shift: float) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.two(torch.relu(self.one(x))) * scale + shift
            aside.append(y.square().mean())
            return y, y.sum()

        y, total = checkpoint(function, x, use_reentrant=False, shift=1.5)
        return y, total + aside[0]


class Operations(TorchDispatchMode):
    """Counts the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def step(model: nn.Module, forward: Any) -> tuple[list[torch.Tensor | None], int]:
    """Outputs, gradients and buffers after one step, and how many matrix products that took."""
    torch.manual_seed(0)
    outputs = forward(torch.randn(6, 8))
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    with Operations() as operations:
        sum(output.square().sum() for output in outputs).backward()
    kept = [p.grad for p in model.parameters()]
    return [*outputs, *kept, *model.buffers()], operations.counts["aten.addmm.default"]


def regions(program: Program) -> set[str]:
    """Names of the regions that nodes are in."""
    return {info(node).region for node in program.graph.nodes} - {""}


CASES = [
    Net(),
    Net(preserve_rng_state=False, determinism_check="none"),
    Aside(),
    nn.Sequential(Net(), nn.Linear(2, 8), Aside()),
]


@pytest.mark.parametrize("model", CASES, ids=["net", "settings", "aside", "both"])
def test_computes_again_what_eager_computes_again(model: nn.Module) -> None:
    """Bit for bit, the batch statistics that are taken twice among it, and with as many operations in backward."""
    model = copy.deepcopy(model)
    plain = copy.deepcopy(model)
    program = outlined(autopar.trace(model, torch.randn(6, 8)))
    assert program.front_end == "symbolic"
    found, again = step(model, lambda x: program.signature.unflatten(program.graph_module(x)))
    expected, count = step(plain, plain)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert again == count > 0


def test_operations_of_a_checkpoint_are_nodes_in_a_region() -> None:
    """With the line that made it, and the settings that it was given."""
    program = autopar.trace(Net(determinism_check="none"), torch.randn(6, 8))
    assert regions(program) == set(program.regions) == {"checkpoint_1", "checkpoint_2", "checkpoint_3"}
    assert not [node for node in program.find("get_attr") if info(node).region]
    region = program.regions["checkpoint_2"]
    assert region.settings == {"determinism_check": "none"}
    assert region.module_path == ""
    source = region.source
    assert source is not None
    assert "checkpoint(block" in open(source.file).read().splitlines()[source.line - 1]  # noqa: SIM115
    assert not program.opaque_modules().keys() - {f"blocks.{i}.drop" for i in range(3)}


def test_without_gradients_there_is_no_region() -> None:
    """Nothing is computed again where there is no backward."""

    class Evaluated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.head = Net(), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                x = self.net(x)
            return self.head(x)

    program = capture(Evaluated().eval(), (torch.randn(6, 8),))
    assert program.front_end == "symbolic"
    assert not program.regions


def test_segments() -> None:
    """``checkpoint_sequential``, all but whose last part are checkpoints."""

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint_sequential(self.layers, 2, x, use_reentrant=False)

    program = autopar.trace(Stack(), torch.randn(2, 4))
    assert [info(node).region for node in program.find("call_function")] == ["checkpoint_1"] * 2 + [""] * 2


def test_nodes_that_do_not_depend_on_the_region_come_before_it() -> None:
    """So that what synchronises gradients runs once; those that do depend on it come after."""
    program = autopar.trace(Net(), torch.randn(6, 8))
    members = [node for node in program.find("call_function") if info(node).region == "checkpoint_2"]
    first, last = members[0], members[-1]
    (entering,) = [node for node in first.all_input_nodes if node.op == "call_function"]
    with program.graph.inserting_before(members[1]):
        before = program.graph.call_function(torch.relu, (entering,))
        after = program.graph.call_function(torch.relu, (first,))
    (output,) = program.find("output")
    output.args = ((*output.args[0], before, after),)
    program.graph_module.recompile()
    result = outlined(program)
    assert set(region_modules(result.graph_module)) == {"checkpoint_1", "checkpoint_2", "checkpoint_3"}
    assert outlined(result) is result
    torch.manual_seed(0)
    expected = program.graph_module(torch.randn(6, 8))
    torch.manual_seed(0)
    found = result.graph_module(torch.randn(6, 8))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert last in program.graph.nodes  # the program itself stays as it is


@pytest.mark.parametrize("strategy", ["ddp", "data_parallel"])
def test_trains_in_parallel(strategy: str) -> None:
    """With the same gradients as the plain model, and backward computing again."""
    torch.manual_seed(0)
    plain = _without_batch_norm()
    model = autopar.parallelize(copy.deepcopy(plain), strategy, torch.randn(6, 8))
    found, again = step(model, model)
    expected, count = step(plain, plain)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert again >= count > 0


def _without_batch_norm() -> nn.Module:
    net = Net()
    for block in net.blocks:
        block.norm, block.drop = nn.LayerNorm(8), nn.Identity()
    return net
