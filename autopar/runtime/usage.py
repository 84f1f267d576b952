"""Which parameters got no gradient in a backward, for those who ask; nobody does by default."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence

import torch

from autopar.runtime.bucket_kinds import AnyBucket

__all__ = ["ParameterUsage"]


class ParameterUsage:
    """Notes what of each bucket had a gradient on this rank in the backward that is running.

    Args:
        buckets: those of the engine.
        at_end: called at the end of each synchronised backward with the names of the parameters
            that had none, in the order of the buckets; may raise.
    """

    def __init__(self, buckets: Sequence[AnyBucket], at_end: Callable[[list[str]], None]) -> None:
        self._buckets, self._at_end = buckets, at_end
        self._complete: set[int] = set()
        self._partial: dict[int, set[int]] = {}  # of a bucket, the ids of the parameters that had one

    def saw_all(self, bucket: AnyBucket, gradients: Sequence[torch.Tensor | None]) -> None:
        """Notes the gradients of a whole bucket."""
        if not any(map(operator.is_, gradients, itertools.repeat(None))):  # in C: this runs in every step
            self._complete.add(bucket.spec.index)
            return
        for parameter, gradient in zip(bucket.parameters, gradients, strict=True):
            if gradient is not None:
                self.saw(bucket, parameter)

    def saw(self, bucket: AnyBucket, parameter: torch.Tensor) -> None:
        """Notes that one parameter of a bucket got a gradient."""
        self._partial.setdefault(bucket.spec.index, set()).add(id(parameter))

    def finish(self) -> None:
        """Ends a backward."""
        unused = [
            name
            for bucket in self._buckets
            if bucket.spec.index not in self._complete
            for name, parameter in zip(bucket.spec.parameters, bucket.parameters, strict=True)
            if id(parameter) not in self._partial.get(bucket.spec.index, ())
        ]
        self.forget()
        self._at_end(unused)

    def forget(self) -> None:
        """Drops what has been noted."""
        self._complete, self._partial = set(), {}
