"""The mean over all samples where ranks hold different numbers of them: sum(w * g) / sum(w)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from autopar import compat
from autopar.errors import RuntimeStateError
from autopar.runtime.agreement import exchange
from autopar.runtime.bucket_kinds import AnyBucket
from autopar.runtime.collectives import Collectives, Work
from autopar.runtime.group import Group

__all__ = ["WeightedMean"]


class WeightedMean:
    """Scales the buckets of a window so that their sum over the ranks is the mean over all that was weighed.

    A window is every backward up to the one that sends: one, or those of ``accumulate=`` or ``no_sync``.
    Within it ``.grad`` is this rank's weighted sum in units of the weight that came last, which autograd
    adds to as it always does: before a backward of another weight it is rescaled. Where that weight is
    not known before backward ends (several forwards), or is 0 (such a mean may be NaN), what is in
    ``.grad`` is laid aside until then.

    The sum of the weights travels as one number, sent when backward starts and needed at the first bucket.

    Args:
        buckets: what is sent.
        collectives: carries the sum of the weights.
        group: the ranks, for errors.

    Attributes:
        late: whether the buckets of the backward that runs now are complete at its end only.
        total: what the backwards of this window weigh on this rank.
    """

    def __init__(self, buckets: Sequence[AnyBucket], collectives: Collectives, group: Group) -> None:
        self._buckets, self._collectives, self._group = buckets, collectives, group
        self._parameters = [parameter for bucket in buckets for parameter in bucket.parameters]
        self._message: torch.Tensor | None = None
        self._work: Work | None = None
        self._announced = False
        self._refused: float | None = None  # the last weight that was no weight
        self._reached: dict[object, tuple[int, float]] = {}  # backward and weight, by forward
        self._aside: list[torch.Tensor | None] | None = None
        self._task, self._unit = -1, 0.0
        self.late, self.total = False, 0.0

    def watch(self, outputs: Iterable[Any], weight: float) -> None:
        """Counts a forward's weight in each backward that reaches its outputs."""
        if not 0 <= weight < math.inf:
            self._refused, weight = weight, math.nan
        forward = object()

        def reached(_: torch.Tensor) -> None:
            self._reached[forward] = (compat.graph_task(), weight)

        for output in outputs:
            if isinstance(output, torch.Tensor) and output.requires_grad:
                output.register_hook(reached)

    def begin(self, *, plain: bool, sends: bool) -> None:
        """A backward starts.

        Args:
            plain: it is through one forward.
            sends: it is the last of its window.

        Raises:
            RuntimeStateError: it reached no output of the model, or ``.grad`` holds gradients of an earlier window.
        """
        self._task = compat.graph_task()
        weight, first = self._weight(), self._unit == 0
        if first and not sends and any(_holds(parameter.grad) for parameter in self._parameters):
            raise RuntimeStateError(
                "A window of several weighted backwards began with gradients of an earlier one in .grad.",
                why="They would be weighed again.",
                mend="Call optimizer.zero_grad() before the first backward of each window.",
            )
        self.late = not (plain and weight > 0)
        if not self.late:
            self._count(weight, [parameter.grad for parameter in self._parameters])
        elif not first:
            self._aside = [parameter.grad for parameter in self._parameters]
            for parameter in self._parameters:
                parameter.grad = None

    def end(self) -> None:
        """The backward that began, if one did, is over: ``.grad`` is the weighted sum again."""
        if self.late:
            weight, earlier = self._weight(), self._aside or [None] * len(self._parameters)
            if weight > 0:
                self._count(weight, earlier)
                for parameter, gradient in zip(self._parameters, earlier, strict=True):
                    if gradient is not None:
                        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
            else:  # this mean counts nothing, whatever it is; a weight that is none spoils the sum
                self.total += weight
                for parameter, gradient in zip(self._parameters, earlier, strict=True):
                    parameter.grad = gradient
        self._reached, self._aside, self.late = {}, None, False

    def announce(self) -> None:
        """Sends this rank's part of the sum of weights, once a window."""
        if self._announced:
            return
        if self._message is None:
            self._message = self._collectives.empty(1, torch.float64, self._parameters[0].device)
        self._message.fill_(self.total)
        self._announced = True
        self._work = self._collectives.all_reduce(self._message, "the weights of the ranks")

    def settle(self) -> None:
        """Waits for the sum of the weights, and scales the buckets for it.

        Raises:
            RuntimeStateError: some rank's weight is no weight, or none has any; raised alike on all of them.
        """
        if self._work is None:
            return
        self._work.wait()
        assert self._message is not None
        whole, self._work = float(self._message), None
        self._check(whole)
        for bucket in self._buckets:  # a rank whose weight is 0 sends zeros, whatever their scale
            bucket.divide_by(whole / (self._unit or whole), alone=True)

    def forget(self) -> None:
        """The window is over: sent, or given up."""
        if self._work is not None:
            self._work.wait()
        self._announced, self._work, self._refused = False, None, None
        self._reached, self._aside = {}, None
        self._task, self._unit = -1, 0.0
        self.late, self.total = False, 0.0

    def _count(self, weight: float, earlier: Sequence[torch.Tensor | None]) -> None:
        """Adds a backward's weight, which is the unit of ``.grad`` from now on, also of what is there already."""
        if self._unit not in (0.0, weight):
            with torch.no_grad():
                for gradient in earlier:
                    if gradient is not None:
                        gradient.mul_(self._unit / weight)
        self._unit, self.total = weight, self.total + weight

    def _weight(self) -> float:
        reached = [weight for task, weight in self._reached.values() if task == self._task]
        if not reached:
            raise RuntimeStateError(
                "A backward reached parameters without any output of the model, so its weight is not known.",
                why="Weights are counted at tensors in the outputs.",
                mend="Return tensors, in tuples, dicts or dataclasses; or train without weight=.",
            )
        return math.fsum(reached)

    def _check(self, whole: float) -> None:
        if whole > 0:
            return
        if whole == 0:
            raise RuntimeStateError(
                "The weights of all ranks are 0, so there is no mean of their gradients.",
                mend="Leave such a batch out on every rank, or look at the function given as weight=.",
            )
        own = str(self._refused) if self._refused is not None else ""
        said = exchange(self._group, own) if self._group.handle is not None else [own]
        rank = next(rank for rank, weight in enumerate(said) if weight)
        raise RuntimeStateError(
            f"Rank {rank} gave its batch the weight {said[rank]}.",
            mend="A weight is a finite number, 0 or more: look at the function given as weight=.",
        )


def _holds(gradient: torch.Tensor | None) -> bool:
    """Whether there is a gradient other than zeros."""
    if gradient is None:
        return False
    return bool((gradient.coalesce().values() if gradient.is_sparse else gradient).any())
