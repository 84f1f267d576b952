"""Models to verify, and passes with a bug in each; the processes of a verification import this file."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import fx, nn

import autopar
from autopar.passes.base import PassContext, PassResult
from autopar.program import Program

PIPELINE = "inline-modules,shapes,backward-order,bucket,ddp-sync,{bug},lift-parameters"
_HELD: list[nn.Parameter] = []


class MLP(nn.Module):
    """Two layers of one shape, so that swapping them shows in values only."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(6, 6)
        self.fc2 = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.fc2(torch.relu(self.fc1(x)))


class Language(nn.Module):
    """A small GPT with tied embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(17, 8)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True) for _ in range(2))
        self.head = nn.Linear(8, 17, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of the next token."""
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        hidden = self.embed(tokens)
        for layer in self.layers:
            hidden = layer(hidden, src_mask=mask, is_causal=True)
        return self.head(hidden)


class Opaque(nn.Module):
    """Counts its calls, which no graph shows, and branches on a value."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Another sign at every second call."""
        self.calls += 1
        y = self.fc(x)
        return y if self.calls % 2 and float(y.detach().sum()) < 1e9 else -y


class OwnLoss(nn.Module):
    """Returns a dict with its loss, as Hugging Face models do."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Loss and logits."""
        logits = self.fc(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class NotFinite(nn.Module):
    """The root of a negative number."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NaN."""
        return (self.fc(x) - 1e9).sqrt()


class Contrastive(nn.Module):
    """Its result for a sample depends on the others of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A loss over all pairs."""
        y = nn.functional.normalize(self.fc(x), dim=1)
        return nn.functional.cross_entropy(y @ y.T * 5, torch.arange(len(y)))


class SumLoss(nn.Module):
    """Returns a loss that grows with the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A sum over samples."""
        return self.fc(x).square().sum()


def batch_norm() -> nn.Module:
    """With statistics of its own part."""
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def dropout() -> nn.Module:
    """With random numbers of its own rank."""
    return nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 2))


class _Bug:
    """A pass that puts ``function`` behind the synchronised parameter ``parameter``."""

    requires: ClassVar[frozenset[str]] = frozenset()
    provides: ClassVar[frozenset[str]] = frozenset()
    parameter = "fc1.weight"

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Plants the bug; every rule of the verifier still holds."""
        part = next(n for n in program.find("call_function", operator.getitem) if _source(n) == self.parameter)
        users = list(part.users)
        with program.graph.inserting_after(part):
            made = program.graph.call_function(self.function(program), (part,))
        for user in users:
            user.replace_input_with(part, made)
        return PassResult(program, changed=True)

    def function(self, program: Program) -> Callable[..., Any]:
        """What comes behind the parameter."""
        raise NotImplementedError


def _source(node: fx.Node) -> str:
    sync, index = node.args
    assert isinstance(sync, fx.Node)
    return str(sync.args[index].target)  # type: ignore[index, union-attr]


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor) -> torch.Tensor:
        return weight.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] * 2


class _Swapped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, one: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return one.detach(), other.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return gradients[1], gradients[0]


def _held(parameter: torch.Tensor) -> torch.Tensor:
    return _HELD[0]


def _held_fixed(parameter: torch.Tensor) -> torch.Tensor:
    return _HELD[0].detach()


def _scaled(weight: torch.Tensor) -> Any:
    return _Scaled.apply(weight)


def _swapped(one: torch.Tensor, other: torch.Tensor) -> Any:
    return _Swapped.apply(one, other)


@autopar.register_pass
class DropsOne(_Bug):
    """One bias is used as it is, past its bucket."""

    name = "drops-one"
    parameter = "fc1.bias"

    def function(self, program: Program) -> Callable[..., Any]:
        """The user's own parameter."""
        _HELD[:] = [program.model.get_parameter(self.parameter)]
        return _held


@autopar.register_pass
class FreezesOne(DropsOne):
    """One bias is used as a number, so nothing arrives in its bucket."""

    name = "freezes-one"

    def function(self, program: Program) -> Callable[..., Any]:
        """The user's own parameter, without its graph."""
        super().function(program)
        return _held_fixed


@autopar.register_pass
class ScalesWrongly(_Bug):
    """One gradient is doubled before it is averaged."""

    name = "scales-wrongly"

    def function(self, program: Program) -> Callable[..., Any]:
        """Identity, with a factor in backward."""
        return _scaled


@autopar.register_pass
class ChangesForward(_Bug):
    """One weight is used twice as large."""

    name = "changes-forward"

    def function(self, program: Program) -> Callable[..., Any]:
        """Twice the weight."""
        return _twice


def _twice(weight: torch.Tensor) -> torch.Tensor:
    return weight * 2


@autopar.register_pass
class ReordersOnRank1(_Bug):
    """On rank 1 two weights of one shape get each other's gradients."""

    name = "reorders-on-rank-1"

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Plants the bug on one rank; the other one's program stays as it was."""
        if os.environ["RANK"] != "1":
            return PassResult(program, changed=False)
        parts = {_source(n): n for n in program.find("call_function", operator.getitem)}
        one, other = parts["fc1.weight"], parts["fc2.weight"]
        users = {part: list(part.users) for part in (one, other)}
        with program.graph.inserting_before(min(users[one] + users[other], key=list(program.graph.nodes).index)):
            pair = program.graph.call_function(_swapped, (one, other))
            for index, part in enumerate((one, other)):
                made = program.graph.call_function(operator.getitem, (pair, index))
                for user in users[part]:
                    user.replace_input_with(part, made)
        return PassResult(program, changed=True)


@autopar.register_pass
class ReordersBucket(_Bug):
    """On rank 1 a bucket holds its parameters in another order, which the program's verifier sees."""

    name = "reorders-bucket"

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Plants the bug."""
        if os.environ["RANK"] == "1":
            sync = next(program.find("call_function", autopar.ops.sync_gradients))
            sync.args = tuple(reversed(sync.args))
        return PassResult(program, changed=True)
