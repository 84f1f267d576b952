"""One gradient bucket: a flat buffer, the parameters it serves, and the copies in and out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from autopar import compat
from autopar.partitioner.plan import BucketSpec

__all__ = ["Bucket"]

# From this size on, scaling while copying (one pass over memory) beats a grouped copy and one
# scaling of the whole buffer; below, the kernel call of each parameter costs more than the pass.
_LARGE = 32_768


class Bucket:
    """Holds one message of gradients, from the first copy in to the last ``.grad`` set.

    The flat buffer persists over steps, and gradients that were handed out are views of it. It is
    given up for a new one when anybody still holds such a view at the time of the next copy in.

    Args:
        spec: the plan's bucket.
        parameters: its parameters, in the plan's order.
        scale: factor on each gradient before the sum; 1 / world size makes the sum a mean.
    """

    def __init__(self, spec: BucketSpec, parameters: Sequence[nn.Parameter], *, scale: float) -> None:
        self.spec, self.parameters, self.scale = spec, list(parameters), scale
        self.large = [i for i, p in enumerate(self.parameters) if p.numel() >= _LARGE]
        self.small = [i for i, p in enumerate(self.parameters) if p.numel() < _LARGE]
        self.contiguous = all(p.is_contiguous() for p in self.parameters)
        self.flat: torch.Tensor | None = None
        self.slices: list[torch.Tensor] = []
        self.references = 0
        self.missing: list[int] = []
        self.accumulators = [_accumulate_node(p) for p in self.parameters]

    def load(self, gradients: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """Copies scaled gradients in; zeros where there is none. Returns the flat buffer.

        The scaling comes before the sum, as in DistributedDataParallel, so that both give the same
        bits at any world size.
        """
        flat = self._buffer(gradients)
        self.missing = [i for i, gradient in enumerate(gradients) if gradient is None]
        if self.missing:
            torch._foreach_zero_([self.slices[i] for i in self.missing])
        small = [i for i in self.small if gradients[i] is not None]
        if small:
            torch._foreach_copy_([self.slices[i] for i in small], [gradients[i] for i in small])  # type: ignore[misc]
        if self.scale != 1.0 and not self.large:
            flat.mul_(self.scale)
        elif self.scale != 1.0 and small:
            torch._foreach_mul_([self.slices[i] for i in small], self.scale)
        for i in self.large:
            gradient = gradients[i]
            if gradient is not None:
                torch.mul(gradient, self.scale, out=self.slices[i])
        return flat

    def views(self) -> Sequence[torch.Tensor]:
        """Fresh aliases of the flat buffer's slices, in the parameters' shapes and strides.

        Nobody else holds them, so autograd keeps them as ``.grad`` without a copy. ``detach()``
        because it is the cheapest alias there is (2 us each; unflattening anew takes 5 us each).
        """
        return [one.detach() for one in self.slices]

    def store(self, local: Sequence[torch.Tensor | None]) -> None:
        """Puts the reduced gradients into ``.grad`` where autograd did not.

        Args:
            local: each parameter's ``.grad`` before the reduction. Where there was one, it gets the
                result in place. Where there was none, ``.grad`` is set only if another rank
                contributed: a parameter that no rank used keeps None.
        """
        for parameter, before, view in zip(self.parameters, local, self.views(), strict=True):
            if before is not None:
                if before.data_ptr() != view.data_ptr():
                    before.detach().copy_(view)
            elif parameter.grad is None and bool(view.any()):
                parameter.grad = view

    def _buffer(self, gradients: Sequence[torch.Tensor | None]) -> torch.Tensor:
        first = self.parameters[0]
        flat = self.flat
        if flat is not None and flat.device == first.device and flat.dtype == first.dtype:
            start, end = flat.data_ptr(), flat.data_ptr() + flat.numel() * flat.element_size()
            inside = sum(g is not None and start <= g.data_ptr() < end for g in gradients)
            if compat.storage_references(flat) <= self.references + inside:
                return flat
        flat = torch.empty(sum(p.numel() for p in self.parameters), dtype=first.dtype, device=first.device)
        self.flat = flat
        self.slices = (
            list(compat.unflatten_like(flat, self.parameters)) if self.contiguous else self._strided_views(flat)
        )
        self.references = compat.storage_references(flat)
        return flat

    def _strided_views(self, flat: torch.Tensor) -> list[torch.Tensor]:
        views, offset = [], 0
        for parameter in self.parameters:
            # autograd keeps a gradient whose strides are the parameter's, if those are dense
            like = parameter if compat.is_dense(parameter) else torch.empty(parameter.shape, device="meta")
            views.append(flat.as_strided(parameter.shape, like.stride(), offset))
            offset += parameter.numel()
        return views


def _accumulate_node(parameter: nn.Parameter) -> object:
    with torch.enable_grad():
        function = parameter.view_as(parameter).grad_fn
    assert function is not None
    return function.next_functions[0][0]
