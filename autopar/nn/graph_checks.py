"""What DistributedDataParallel refuses although autopar could go on: unused parameters, a changed static graph."""

from __future__ import annotations

from collections.abc import Sequence

from autopar import compat

__all__ = ["GraphChecks"]

_UNFINISHED = "Expected to have finished reduction in the prior iteration before starting a new one."


class GraphChecks:
    """Compares which parameters got gradients with what the constructor was told.

    A parameter without a gradient is mostly a mistake in the model, and scripts rely on hearing of it.

    Args:
        parameters: names of the trainable parameters, in registration order.
        find_unused: the caller expects unused parameters.
        rank: for messages.

    Attributes:
        static: the caller says that the same parameters get gradients in every backward.
        unused: names of the parameters without a gradient in the last backward.
    """

    def __init__(self, parameters: Sequence[str], *, find_unused: bool, rank: int) -> None:
        self.find_unused, self.rank = find_unused, rank
        self.static = False
        self.unused: list[str] = []
        self._indices = {name: index for index, name in enumerate(parameters)}
        self._unused_at_first: set[str] | None = None
        self._unfinished: list[str] | None = None

    def before_forward(self) -> None:
        """Refuses a forward after a backward that did not reach every parameter it had to.

        Raises:
            RuntimeError: with the indices of those parameters, and under TORCH_DISTRIBUTED_DEBUG their names.
        """
        if self._unfinished is not None:
            raise RuntimeError(self._unfinished_text(self._unfinished))

    def after_backward(self, unused: list[str]) -> None:
        """Takes in what a backward left out.

        Raises:
            RuntimeError: a static graph began to use a parameter.
        """
        self.unused = unused
        if self.find_unused and not self.static:
            return
        if not self.static:
            self._unfinished = unused or None
            return
        if self._unused_at_first is None:
            self._unused_at_first = set(unused)
            return
        missing = [name for name in unused if name not in self._unused_at_first]
        added = sorted(self._unused_at_first.difference(unused), key=self._indices.__getitem__)
        if missing or added:
            self._unfinished = missing
        if added:
            raise RuntimeError(
                "Your training graph has changed in this iteration, which static_graph=True rules out: "
                f"{', '.join(added)} got a gradient and had none in the first iteration."
            )

    def _unfinished_text(self, unused: list[str]) -> str:
        debug = compat.distributed_debug()
        indices = " ".join(str(index) for index in sorted(self._indices[name] for name in unused))
        names = f"\nParameters which did not receive grad for rank {self.rank}: {', '.join(unused)}" if debug else ""
        more = (
            ""
            if debug
            else "\nTo see their names, set the environment variable TORCH_DISTRIBUTED_DEBUG to either INFO or DETAIL."
        )
        where = f"\nParameter indices which did not receive grad for rank {self.rank}: {indices}"
        return f"{_UNFINISHED} {self._cause()}{where}{names}{more}"

    def _cause(self) -> str:
        if self.static:
            return (
                "This error indicates that your training graph has changed in this iteration, e.g., one parameter is "
                "used in first iteration, but then got unused in the second iteration. this is not compatible with "
                "static_graph set to True."
            )
        return (
            "Some parameters got no gradient. Allow that by passing the keyword argument "
            "`find_unused_parameters=True`, and make sure that all `forward` function outputs participate in "
            "calculating loss."
        )
