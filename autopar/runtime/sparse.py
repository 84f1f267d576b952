"""A bucket for the one parameter whose gradient is sparse, such as an ``nn.Embedding(sparse=True)``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from autopar.partitioner.plan import BucketSpec
from autopar.runtime.bucket import accumulate_node
from autopar.runtime.collectives import Collectives

__all__ = ["SparseBucket"]


class SparseBucket:
    """Does for a sparse gradient what ``Bucket`` does for dense ones; it always is on the hook route.

    Args:
        spec: the plan's bucket, of one parameter.
        parameters: that parameter.
        scale: factor on the gradient before the sum.
        collectives: the backend, which has no say here.
        whole: as it always is.
    """

    message_scale = 1.0

    def __init__(
        self,
        spec: BucketSpec,
        parameters: Sequence[nn.Parameter],
        *,
        scale: float,
        collectives: Collectives,
        whole: bool = True,
    ) -> None:
        assert len(parameters) == 1, "a parameter with sparse gradients travels alone"
        self.spec, self.parameters, self.scale = spec, list(parameters), scale
        self.accumulators = [accumulate_node(parameters[0])]
        self.messages: list[torch.Tensor] = []
        self.missing: list[int] = []

    def load(self, gradients: Sequence[torch.Tensor | None], *, owners: int) -> None:
        """Scales the gradient into a message; one without entries where there is none."""
        gradient, parameter = gradients[0], self.parameters[0]
        self.missing = [0] if gradient is None else []
        if gradient is None:
            rows, entries = (
                parameter.new_empty((1, 0), dtype=torch.int64),
                parameter.new_empty((0, *parameter.shape[1:])),
            )
            self.messages = [torch.sparse_coo_tensor(rows, entries, parameter.shape)]
        else:
            self.messages = [gradient.detach() * self.scale]

    def divide_by(self, count: float, *, alone: bool = False) -> None:
        """Sets the scale of the next messages to 1 / ``count``."""
        self.scale = 1.0 / count

    def views(self) -> Sequence[torch.Tensor]:
        """The gradient that travelled."""
        return list(self.messages)

    def arrived(self) -> bool:
        """Never: sparse gradients travel when backward is over."""
        return False

    def unscale(self) -> None:
        """Nothing was given out."""

    def store(self, local: Sequence[torch.Tensor | None]) -> None:
        """Makes ``.grad`` the reduced gradient, unless no rank had one."""
        if local[0] is not None or self.messages[0]._nnz() > 0:
            self.parameters[0].grad = self.messages[0]

    def release(self) -> None:
        """Lets go of the message."""
        self.messages = []
