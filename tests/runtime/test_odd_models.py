"""Models whose forward is unlike others train as they do without autopar, from the first step on."""

# ruff: noqa: D102 - a forward is what its class says

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

import autopar
from autopar.errors import PassError
from autopar.passes.base import PassContext, PassResult
from autopar.program import Program


class Transforms(nn.Module):
    """Calls a submodule through the transforms of torch.func."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parameters = dict(self.net.named_parameters())

        def energy(x: torch.Tensor) -> torch.Tensor:
            return functional_call(self.net, parameters, (x,)).sum()

        return vmap(energy)(x) + (vmap(grad(energy))(x) ** 2).sum(-1)


class MakesLate(nn.Module):
    """Makes a submodule when it is called first."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not hasattr(self, "late"):
            self.late = nn.Linear(8, 2)
        return self.late(self.first(x))


class Nests(nn.Module):
    """Has rows of several lengths in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.nested.as_nested_tensor([x[:1], x[1:]])
        return torch.nested.to_padded_tensor(self.fc(rows), 0.0)


def scripted() -> nn.Module:
    """Has a ScriptModule in the middle."""
    middle = torch.jit.script(nn.Sequential(nn.Linear(8, 8), nn.ReLU()))
    return nn.Sequential(nn.Linear(8, 8), middle, nn.Linear(8, 2))


@pytest.mark.parametrize("build", [Transforms, MakesLate, Nests, scripted])
def test_trains_as_without(build: Callable[[], nn.Module]) -> None:
    """Gradients and random numbers of three steps are those of the plain model, bit for bit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nested tensors are a prototype, TorchScript is deprecated
        inputs = [torch.randn(4, 8) for _ in range(3)]
        found = []
        for parallel in (False, True):
            torch.manual_seed(0)
            model = autopar.parallelize(build(), "ddp") if parallel else build()
            for x in inputs:
                model.zero_grad()
                model(x).square().sum().backward()
            found.append([*(p.grad for p in model.parameters()), torch.rand(2)])
    assert len(found[0]) == len(found[1]) > 2
    for expected, got in zip(*found, strict=True):
        assert (got is None) == (expected is None)
        assert got is None or torch.equal(got, expected)


@autopar.register_pass
class TakesNoLinear:
    """A pass with a defect: it fails on whatever was taken apart."""

    name: ClassVar[str] = "takes-no-linear"
    requires: ClassVar[frozenset[str]] = frozenset()
    provides: ClassVar[frozenset[str]] = frozenset()

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        if program.front_end != "opaque":
            raise ZeroDivisionError("none at all")
        return PassResult(program, changed=False)


class Defective(autopar.DDP):
    """Has that pass in its pipeline."""

    def pipeline(self) -> str:
        return f"{super().pipeline()},takes-no-linear"


def test_a_defect_of_a_pass_does_not_stop_training() -> None:
    """The model runs whole, and a warning says what failed; where a pipeline was asked for it is an error."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    model, x = autopar.parallelize(copy.deepcopy(plain), Defective()), torch.randn(4, 8)
    with pytest.warns(UserWarning, match=r"could not compile Sequential, which runs as it is .*ZeroDivisionError"):
        model(x).sum().backward()
    plain(x).sum().backward()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    asked = autopar.parallelize(plain, autopar.DDP(), pipeline=Defective().pipeline())
    with pytest.raises(PassError, match="takes-no-linear"):
        asked(x)


def test_an_error_of_the_model_is_the_model_s() -> None:
    """It is raised as it is, and not taken for a defect."""
    model = autopar.parallelize(nn.Linear(8, 2), "ddp")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            model(torch.randn(4, 7))
