"""The plain training that a strategy must reproduce: an untouched module, its batch in the same parts, one process."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from autopar import replica_ops
from autopar.capture.streams import RandomStreams
from autopar.partitioner.plan import Plan
from autopar.structure import Structure, take_apart
from autopar.verification.batches import Batches, filled
from autopar.verification.training import (
    LossOf,
    Record,
    Tensors,
    as_record,
    drawn,
    gradients_of,
    outputs_of,
    state_of,
)

__all__ = ["Expected", "RanksReference", "Reference", "ReplicasReference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the parallel side must have after a backward.

    Attributes:
        records: by rank: outputs, random numbers, gradients and buffers.
        slack: by parameter, how far each element of a gradient may be off; empty where bits must be equal.
    """

    records: Sequence[Record]
    slack: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Reference(Protocol):
    """A plain training.

    Attributes:
        model: untouched but for its values.
    """

    model: nn.Module

    def backward(self, batches: Batches, step: int, seeds: Sequence[int]) -> Expected:
        """One forward and backward; what the parallel side must have after them."""
        ...

    def update(self, gradients: Tensors | None = None) -> None:
        """The optimizer's step, on these gradients or on its own."""
        ...


class RanksReference:
    """Every part of the batch for itself, then the mean of the parts' gradients.

    Each gradient is divided by the number of ranks and rounded, then the terms are added up, as the ranks do.
    Two terms give the same sum in either order, so with two ranks every bit must be right. With n > 2 ranks
    the order depends on where an element lies in its bucket. Two orders of adding n terms differ by at most
    (n - 1) * eps * sum |term| (Higham, Accuracy and Stability of Numerical Algorithms, 4.2: each of two sums is
    off by (n - 1) * eps / 2 * sum |term|, to first order); that is the slack then.

    Every rank has a module object of its own, with its own attributes and buffers and everybody's parameters.

    Args:
        model: untouched; it is trained.
        optimizer: of its parameters.
        loss_of: makes a loss of its result.
        ranks: how many there are.
        equal_buffers: whether all ranks take over rank 0's buffers after each backward.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_of: LossOf,
        *,
        ranks: int,
        equal_buffers: bool = True,
    ) -> None:
        self.model, self.optimizer, self.loss_of = model, optimizer, loss_of
        self.ranks, self.equal_buffers = ranks, equal_buffers
        self._models = [model, *(_twin(model) for _ in range(1, ranks))]

    def backward(self, batches: Batches, step: int, seeds: Sequence[int]) -> Expected:
        """Sets ``.grad`` to the mean of the parts' gradients and says what each rank must have."""
        parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        records: list[dict[str, Tensors]] = []
        terms: list[dict[str, torch.Tensor | None]] = []
        for rank, (model, seed) in enumerate(zip(self._models, seeds, strict=True)):
            call = filled(batches.call, batches.part(step, rank))
            records.append(dict(as_record(model, call, self.loss_of, seed)))
            terms.append({name: _scaled(p.grad, 1.0 / self.ranks) for name, p in parameters.items()})
        if self.equal_buffers:
            for model in self._models[1:]:
                _copy_buffers(self.model, model)
        self.model.zero_grad()
        slack: dict[str, torch.Tensor] = {}
        for name, parameter in parameters.items():
            given = [term for each in terms if (term := each[name]) is not None]
            if given:
                parameter.grad = sum(given[1:], given[0])
                if self.ranks > 2:
                    slack[name] = (self.ranks - 1) * torch.finfo(parameter.dtype).eps * _magnitude(given)
        means = gradients_of(self.model)
        for record, own, model in zip(records, terms, self._models, strict=True):
            record["gradients"] = {name: _seen(mean, own[name]) for name, mean in means.items()}
            record["buffers"] = state_of(model)["buffers"]
        return Expected(records=records, slack=slack)

    def update(self, gradients: Tensors | None = None) -> None:
        """The optimizer's step.

        Args:
            gradients: taken in the place of its own, where those may differ by a rounding: from equal
                gradients on every bit must be right again.
        """
        for name, parameter in self.model.named_parameters():
            found = None if gradients is None else gradients.get(name)
            if found is not None and parameter.grad is not None:
                parameter.grad = found.clone()
        self.optimizer.step()


class ReplicasReference:
    """The untouched module on one part after the other; one loss of what they return together, one backward.

    The parts and the way in which outputs are put together are the plan's. The first part runs through the
    module itself, each of the others through a copy, whose buffers and attributes are then forgotten.

    Args:
        model, optimizer, loss_of: as for ``RanksReference``.
        plan: of the strategy ``data_parallel``.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, loss_of: LossOf, plan: Plan) -> None:
        self.model, self.optimizer, self.loss_of, self.plan = model, optimizer, loss_of, plan

    def backward(self, batches: Batches, step: int, seeds: Sequence[int]) -> Expected:
        """Sets ``.grad`` to the gradient of the whole batch and says what the one process must have."""
        options = self.plan.options
        chunks = replica_ops.scatter(
            batches.whole(step), replicas=options["replicas"], dim=options["dim"], shared=options["shared"]
        )
        models = [self.model, *(_twin(self.model) for _ in chunks.sizes[1:])]
        self.model.zero_grad()
        RandomStreams().seed(seeds[0])
        results: list[tuple[list[Any], Structure]] = []
        for model, tensors in zip(models, chunks.inputs, strict=True):
            args, kwargs = filled(batches.call, tensors)
            results.append(take_apart(model(*args, **kwargs)))
        leaves, structure = results[0]
        if len(results) > 1:
            parts = [one for one, _ in results]
            leaves = replica_ops.gather(parts, chunks, combine=self.plan.combine, dim=options["dim"])
        result = structure.unflatten(leaves)
        loss = self.loss_of(result)
        loss.backward()
        record = {
            "outputs": outputs_of(result, loss),
            "random numbers": drawn(),
            "gradients": gradients_of(self.model),
            "buffers": state_of(self.model)["buffers"],
        }
        return Expected(records=[record])

    def update(self, gradients: Tensors | None = None) -> None:
        """The optimizer's step, on its own gradients."""
        self.optimizer.step()


def _scaled(gradient: torch.Tensor | None, scale: float) -> torch.Tensor | None:
    if gradient is None:
        return None
    scaled = gradient.detach() * scale
    return scaled if scaled.layout == torch.strided else scaled.coalesce()


def _seen(mean: torch.Tensor | None, own: torch.Tensor | None) -> torch.Tensor | None:
    """A rank whose part gave a parameter no gradient gets the others' mean, unless that is zero."""
    return None if mean is None or (own is None and not bool(mean.any())) else mean


def _magnitude(terms: Sequence[torch.Tensor]) -> torch.Tensor:
    total = terms[0].to_dense().abs().double()
    for term in terms[1:]:
        total = total + term.to_dense().abs().double()
    return total


def _twin(model: nn.Module) -> nn.Module:
    """A copy of the module object with the same parameters."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


@torch.no_grad()
def _copy_buffers(source: nn.Module, target: nn.Module) -> None:
    for one, other in zip(source.buffers(), target.buffers(), strict=True):
        other.copy_(one)
