"""The other yardstick: the untouched module on the whole batch, and what rounding alone makes of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import nn

from autopar import compat
from autopar.capture.streams import RandomStreams
from autopar.passes.batch_statistics import batch_statistics
from autopar.verification.batches import Batches, filled
from autopar.verification.comparison import Difference, Tally
from autopar.verification.training import Call, LossOf, Tensors, as_record, drawn

__all__ = ["WholeBatch"]

_FACTOR = 8
_SAME = math.sqrt(torch.finfo(torch.float64).eps)  # relative; rounding in float64 stays far below


class WholeBatch:
    """Compares each step with one on the whole batch, from the same parameters.

    Both sides compute the same numbers in another order: in a part of the batch a matrix product has other
    sizes, and a sum over samples is a sum over parts of sums over samples. So bits differ, by as much as the
    model's conditioning makes of a rounding. That is measured where it acts: the whole-batch step is also taken
    in float64, whose roundings are 5e8 times smaller, and what the plain training is off by there is its own
    rounding error. The parallel one's error is made of as many roundings, so it may be off by ``8`` times
    that (or 8 units in the last place of the largest gradient, where the plain one happens to be exact), and
    a wrong scale, order or sample is off by many thousand times that.

    Where parts and whole differ in float64 as well, they are different computations by design of the model.

    Args:
        model: an untouched module in its start state; a copy is trained on whole batches.
        optimizer: made of that copy's parameters by the caller.
        loss_of: makes a loss of its result.
        parts: how many there are; 1 where the parallel side returns the whole batch's outputs.

    Attributes:
        tally: of what was compared.
        reason: why nothing is compared, as a sentence; empty where it is.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, loss_of: LossOf, parts: int) -> None:
        self.model, self.optimizer, self.loss_of, self.parts = model, optimizer, loss_of, parts
        self.tally = Tally("gradients", "the whole batch", f"{_FACTOR} x its rounding error")
        found = batch_statistics(model)
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        self.reason = (
            f"{found[0]}{more} takes statistics of the samples that it sees, so a part of a batch gives other ones "
            "than the whole, by design of the model."
            if found
            else ""
        )

    def compare(
        self, state: nn.Module, batches: Batches, step: int, seed: int, gradients: Tensors
    ) -> Difference | None:
        """One step on the whole batch from the values of ``state``, which stays as it is.

        Args:
            state: the module before the step's optimizer.
            batches: of the verification.
            step: number of the step.
            seed: of the random streams.
            gradients: the parallel training's, of rank 0.
        """
        if self.reason:
            return None
        call = filled(batches.call, batches.whole(step))
        plain, random = _gradients(copy.deepcopy(state), call, self.loss_of, seed)
        if random:
            self.reason = "Its forward draws random numbers, other ones for a part of a batch than for the whole."
            return None
        try:
            exact = copy.deepcopy(state).double()
            whole, _ = _gradients(exact, _double(call), self.loss_of, seed)
            parts = [
                _gradients(exact, _double(filled(batches.call, batches.part(step, i))), self.loss_of, seed)[0]
                for i in range(self.parts)
            ]
        except Exception as error:
            self.reason = f"Its rounding error cannot be measured: in float64 it raises {type(error).__name__}."
            return None
        odd = next((name for found in (whole, plain) for name, g in found.items() if not _finite(g)), None)
        if odd is not None:
            self.reason = f"On the whole batch the gradient of {odd} is not finite, with no rounding error to measure."
            return None
        scale = max((float(g.abs().max()) for g in whole.values() if g is not None and g.numel()), default=0.0)
        self.reason = self._otherwise_by_design(whole, parts, scale)
        if self.reason:
            return None
        return self._compare(step, plain, whole, gradients, scale)

    def train(self, batches: Batches, step: int, seed: int) -> None:
        """One step of the plain training that has only ever seen whole batches."""
        as_record(self.model, filled(batches.call, batches.whole(step)), self.loss_of, seed)
        self.optimizer.step()

    def drift(self, parameters: Tensors) -> tuple[float, str]:
        """The largest difference between its parameters and the parallel training's, and whose that is."""
        found = [(0.0, "")]
        for name, parameter in self.model.named_parameters():
            other = parameters.get(name)
            if other is not None and other.numel():
                found.append((float((parameter.detach().double() - other.double()).abs().max()), name))
        return max(found)

    def _otherwise_by_design(self, whole: Tensors, parts: Sequence[Tensors], scale: float) -> str:
        if self.parts == 1 or _agree(whole, parts, scale, share=1.0 / self.parts):
            return ""
        if _agree(whole, parts, scale, share=1.0):
            return (
                "Its loss is a sum over samples, and ranks average their gradients, so each is "
                f"1/{self.parts} of the whole batch's, as with DistributedDataParallel."
            )
        return (
            "Its loss mixes the samples of a batch (in float64, too, the mean of the parts' gradients is not "
            "that of the whole batch), so parts train otherwise by design of the model."
        )

    def _compare(
        self, step: int, plain: Tensors, whole: Tensors, gradients: Tensors, scale: float
    ) -> Difference | None:
        first = None
        for name, exact in whole.items():
            got, mine = gradients.get(name), plain[name]
            if exact is None or got is None or mine is None:
                continue
            rounding = float((mine.double() - exact).abs().max()) if mine.numel() else 0.0
            limit = _FACTOR * max(rounding, torch.finfo(got.dtype).eps * scale)
            found = self.tally.take(name, got.double(), exact, step=step, rank=0, slack=limit)
            first = first or found
        return first


def _gradients(model: nn.Module, call: Call, loss_of: LossOf, seed: int) -> tuple[Tensors, bool]:
    """Gradients of one backward, and whether random numbers were drawn on the way."""
    record = as_record(model, call, loss_of, seed)
    RandomStreams().seed(seed)
    untouched, after = drawn(), record["random numbers"]
    return record["gradients"], any(not _equal(after[name], untouched[name]) for name in untouched)


def _finite(gradient: torch.Tensor | None) -> bool:
    return gradient is None or bool(gradient.isfinite().all())


def _equal(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one, other)


def _double(call: Call) -> Call:
    args, kwargs = compat.tree_map(
        lambda leaf: leaf.double() if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf,
        call,
    )
    return args, kwargs


def _agree(whole: Tensors, parts: Sequence[Tensors], scale: float, *, share: float) -> bool:
    """Whether the sum of the parts' gradients, times ``share``, is the whole's but for roundings of float64."""
    for name, gradient in whole.items():
        terms = [term for part in parts if (term := part[name]) is not None]
        if gradient is None or not terms:
            if (gradient is None) != (not terms):
                return False
            continue
        apart = (torch.stack(terms).sum(0) * share - gradient).abs()
        if apart.numel() and float(apart.max()) > _SAME * scale:
            return False
    return True
