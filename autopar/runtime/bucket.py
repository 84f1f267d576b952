"""One gradient bucket: a flat buffer, the parameters it serves, and the copies in and out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import nn

from autopar import compat
from autopar.partitioner.plan import BucketSpec
from autopar.runtime.collectives import Collectives

__all__ = ["Bucket", "FlatBuffer", "accumulate_node", "dense_strides", "python_references"]

# From this many elements on, scaling while copying (one pass over memory) beats a grouped copy and
# one scaling of the whole buffer; below, the kernel call of each parameter costs more than the pass.
_LARGE = 32_768
# From this many bytes on, a gradient travels as a message of its own, without a copy where nobody
# else holds it: the pass over memory saved is worth more than the latency of a message.
_SOLO = 4 * 1024 * 1024


class Bucket:
    """Holds the messages of one bucket, from the first copy in to the last ``.grad`` set.

    Small gradients share a flat buffer that persists over steps; huge ones travel as they are.
    Gradients that were handed out are views of what travelled. A buffer is given up for a new one
    when anybody still holds such a view at the time of the next copy in.

    Args:
        spec: the plan's bucket.
        parameters: its parameters, in the plan's order.
        scale: factor on each gradient before the sum; 1 / world size makes the sum a mean.
        collectives: the backend. Where it shares memory, nothing travels as it is (everything has to
            be copied there anyway) and the reduction does the scaling.

    Attributes:
        message_scale: factor on the messages that what reduces them has to apply.
        messages: what is to be all-reduced, in place and in this order, after ``load``.
        missing: parameters (by position) that had no gradient at the last ``load``.
        accumulators: autograd's node that adds to ``.grad``, for each parameter.
    """

    def __init__(
        self,
        spec: BucketSpec,
        parameters: Sequence[nn.Parameter],
        *,
        scale: float,
        collectives: Collectives,
        whole: bool = False,
    ) -> None:
        self.spec, self.parameters = spec, list(parameters)
        shares = collectives.shares_memory
        self._scaled_later = shares or bool(spec.compression)
        self.scale, self.message_scale = (1.0, scale) if self._scaled_later else (scale, 1.0)
        self.accumulators = [accumulate_node(p) for p in self.parameters]
        self.messages: list[torch.Tensor] = []
        self.missing: list[int] = []
        self._solo = [i for i, p in enumerate(self.parameters) if not (shares or whole) and p.nbytes >= _SOLO]
        shared = [i for i in range(len(self.parameters)) if i not in self._solo]
        self._large = [i for i in shared if self.scale != 1.0 and self.parameters[i].numel() >= _LARGE]
        self._small = [i for i in shared if i not in self._large]
        self._uniform = not self._solo and not self._large
        self._flat = FlatBuffer([self.parameters[i] for i in shared], collectives)
        self._flat_places = {i: place for place, i in enumerate(shared)}
        self._solo_buffers = {i: FlatBuffer([self.parameters[i]], collectives) for i in self._solo}
        self._results: list[torch.Tensor] = []

    def load(self, gradients: Sequence[torch.Tensor | None], *, owners: int) -> None:
        """Scales the gradients and puts them into ``messages``; zeros where there is none.

        The scaling comes before the sum, as in DistributedDataParallel, so that both give the same
        bits at any world size.

        Args:
            gradients: one for each parameter, or None.
            owners: what ``python_references`` gives for a gradient that only the caller has; such a
                one may be scaled and reduced where it is. 0 says that all of them are somebody's.
        """
        self.missing = [i for i, gradient in enumerate(gradients) if gradient is None]
        if self._uniform and not self.missing:  # the common case, with no loop over parameters in Python
            self.messages = [self._flat.claim(gradients)]
            torch._foreach_copy_(self._flat.slices, cast("list[torch.Tensor]", list(gradients)))
            if self.scale != 1.0:
                self.messages[0].mul_(self.scale)
            self._results = self._flat.slices
            return
        self.messages = []
        results: dict[int, torch.Tensor] = {}
        if self._flat_places:
            given = [gradients[i] for i in self._flat_places]
            self.messages.append(self._flat.claim(given))
            results |= {i: self._flat.slices[place] for i, place in self._flat_places.items()}
            self._fill(gradients, results)
        for i in self._solo:
            gradient = gradients[i]
            if (
                gradient is not None
                and python_references(gradient) <= owners
                and _takeable(gradient, self.parameters[i])
            ):
                results[i] = gradient.mul_(self.scale)
                self.messages.append(gradient.detach().view(-1))
                continue
            self.messages.append(self._solo_buffers[i].claim([gradient]))
            results[i] = self._solo_buffers[i].slices[0]
            if gradient is None:
                results[i].zero_()
            else:
                torch.mul(gradient, self.scale, out=results[i])
        self._results = [results[i] for i in range(len(self.parameters))]

    def divide_by(self, count: float, *, alone: bool = False) -> None:
        """Sets the scale of the next messages to 1 / ``count``; ``alone`` if other ranks have other counts."""
        later = self._scaled_later and not alone  # every rank's part alike
        self.scale, self.message_scale = (1.0, 1.0 / count) if later else (1.0 / count, 1.0)

    def views(self) -> Sequence[torch.Tensor]:
        """Fresh aliases of what travelled, in the parameters' shapes and strides.

        Nobody else holds them, so autograd keeps them as ``.grad`` without a copy. ``detach()``
        because it is the cheapest alias there is (2 us each; unflattening anew takes 5 us each).
        """
        return [result.detach() for result in self._results]

    def arrived(self) -> bool:
        """Whether every ``.grad`` is what ``views`` gave out: none is missing, and nothing was added to any."""
        if self.missing:
            return False
        pairs = zip(self.parameters, self._results, strict=True)
        return all(p.grad is not None and p.grad.data_ptr() == result.data_ptr() for p, result in pairs)

    def unscale(self) -> None:
        """Makes every ``.grad`` that ``views`` went into this rank's own gradient, without the scale."""
        for parameter, result in zip(self.parameters, self._results, strict=True):
            if self.scale == 1.0 or parameter.grad is None:
                continue
            if parameter.grad.data_ptr() == result.data_ptr():
                parameter.grad.mul_(1.0 / self.scale)
            else:
                parameter.grad.add_(result, alpha=1.0 / self.scale - 1.0)

    def store(self, local: Sequence[torch.Tensor | None]) -> None:
        """Makes ``.grad`` the reduced gradients where autograd did not.

        Args:
            local: each parameter's ``.grad`` before the reduction. Where there was none, ``.grad``
                is set only if another rank contributed: a parameter that no rank used keeps None.
        """
        for parameter, before, view in zip(self.parameters, local, self.views(), strict=True):
            if before is not None:
                if before.data_ptr() != view.data_ptr():
                    parameter.grad = view
            elif parameter.grad is None and bool(view.any()):
                parameter.grad = view

    def release(self) -> None:
        """Lets go of gradients that travelled as they were; called when all of them have arrived."""
        self.messages = []
        self._results = []

    def _fill(self, gradients: Sequence[torch.Tensor | None], results: Mapping[int, torch.Tensor]) -> None:
        absent = [results[i] for i in self._flat_places if gradients[i] is None]
        if absent:
            torch._foreach_zero_(absent)
        small = [(results[i], gradient) for i in self._small if (gradient := gradients[i]) is not None]
        if small:
            torch._foreach_copy_([place for place, _ in small], [gradient for _, gradient in small])
        if self.scale != 1.0 and not self._large:
            self.messages[0].mul_(self.scale)
        elif self.scale != 1.0 and small:
            torch._foreach_mul_([place for place, _ in small], self.scale)
        for i in self._large:
            gradient = gradients[i]
            if gradient is not None:
                torch.mul(gradient, self.scale, out=results[i])


class FlatBuffer:
    """One contiguous tensor with a slice for each of some parameters.

    Args:
        parameters: what the slices are shaped like; all of one dtype and device.
        collectives: makes the tensor.

    Attributes:
        slices: views in the parameters' shapes and strides; valid until the next ``claim``.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], collectives: Collectives) -> None:
        self.parameters = list(parameters)
        self._empty = collectives.empty
        self._numel = sum(p.numel() for p in self.parameters)
        self.slices: list[torch.Tensor] = []
        self._flat: torch.Tensor | None = None
        self._references = 0

    def claim(self, gradients: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """The buffer, free to be overwritten: a new one if anybody but ``gradients`` aliases the old."""
        first, flat = self.parameters[0], self._flat
        if flat is not None and flat.device == first.device and flat.dtype == first.dtype:
            more = compat.storage_references(flat) - self._references
            if more <= 0:
                return flat
            start, end = flat.data_ptr(), flat.data_ptr() + flat.nbytes
            if more <= sum(g is not None and start <= g.data_ptr() < end for g in gradients):
                return flat
        flat = self._empty(self._numel, first.dtype, first.device)
        self._flat, self.slices = flat, self._cut(flat)
        self._references = compat.storage_references(flat)
        return flat

    def _cut(self, flat: torch.Tensor) -> list[torch.Tensor]:
        slices, offset = [], 0
        for parameter in self.parameters:
            slices.append(flat.as_strided(parameter.shape, dense_strides(parameter), offset))
            offset += parameter.numel()
        return slices


def dense_strides(parameter: nn.Parameter) -> tuple[int, ...]:
    """The parameter's strides, with which autograd keeps a gradient as it is; contiguous ones where they have gaps."""
    return (parameter if compat.is_dense(parameter) else torch.empty(parameter.shape, device="meta")).stride()


def python_references(gradient: torch.Tensor) -> int:
    """Python's references to a gradient, counted the same way wherever they are compared."""
    return sys.getrefcount(gradient)


def _takeable(gradient: torch.Tensor, parameter: nn.Parameter) -> bool:
    """Whether a gradient that no other Python code has may be changed and kept as it is."""
    return (
        gradient.is_contiguous()
        and parameter.is_contiguous()
        and gradient.dtype == parameter.dtype
        and compat.is_sole_owner(gradient)
    )


def accumulate_node(parameter: nn.Parameter) -> object:
    """Autograd's node that adds to the parameter's ``.grad``."""
    with torch.enable_grad():
        function = parameter.view_as(parameter).grad_fn
    assert function is not None
    return function.next_functions[0][0]
