"""``powersgd``: gradients of matrices travel as products of thin ones, found by one power iteration a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from autopar.passes.changing.powersgd import PowerSGD
from autopar.runtime.collectives import Work
from autopar.runtime.compressors.base import Wire

__all__ = ["LowRank"]


class LowRank:
    """Sums a bucket's matrices M as P (P^T M), where P is an orthogonal basis of M Q and Q is the last step's M^T P.

    With P travels what is no matrix, as it is. The remainder that a rank keeps is that of its own matrices,
    M - P (P^T M), so that the remainders of all ranks sum up to what the result lacks.

    Args:
        method: the rank, and whether remainders are kept for the next step.
        shapes: of the bucket's parameters.
        wire: what they travel through.
    """

    def __init__(self, method: PowerSGD, shapes: Sequence[torch.Size], wire: Wire) -> None:
        self.wire, self.error_feedback = wire, method.error_feedback
        self.sides: list[tuple[int, int, int]] = []  # place in the message, rows, columns
        self._rest: list[tuple[int, int]] = []  # place, elements
        start = 0
        for shape in shapes:
            sides = method.sides(shape)
            if sides is None:
                self._rest.append((start, shape.numel()))
            else:
                self.sides.append((start, *sides))
            start += shape.numel()
        rank = method.rank
        seeded = torch.Generator().manual_seed(0)  # the same start on all ranks
        self.right = [torch.randn(columns, rank, generator=seeded) for _, _, columns in self.sides]
        self._kept: torch.Tensor | None = None  # what has not travelled so far
        self._first: torch.Tensor | None = None
        self._second: torch.Tensor | None = None

    def start(self, flat: torch.Tensor, scale: float, label: str) -> Work:
        """Sends M Q of message and remainder."""
        flat.mul_(scale)
        if self._kept is not None:
            flat.add_(self._kept)
        self.right = [right.to(flat) for right in self.right]
        left = [matrix @ right for matrix, right in zip(self.matrices(flat), self.right, strict=True)]
        first = self._first = self._packed(self._first, [*left, *self.rest(flat)])
        return _Iteration(self, self.wire.all_reduce(first, label), first, flat, label)

    def matrices(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """Views of a message."""
        return [flat[start : start + rows * columns].view(rows, columns) for start, rows, columns in self.sides]

    def rest(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """Views of what is no matrix."""
        return [flat[start : start + numel] for start, numel in self._rest]

    def send_right(self, right: Sequence[torch.Tensor], label: str) -> tuple[torch.Tensor, Work]:
        """Starts summing the M^T P."""
        self._second = self._packed(self._second, right)
        return self._second, self.wire.all_reduce(self._second, label)

    def keep(self, flat: torch.Tensor, left: Sequence[torch.Tensor], right: Sequence[torch.Tensor]) -> None:
        """Notes what of this rank's message does not travel."""
        if not self.error_feedback:
            return
        if self._kept is None:
            self._kept = torch.zeros_like(flat)
        for kept, matrix, one, other in zip(self.matrices(self._kept), self.matrices(flat), left, right, strict=True):
            # A step that overflowed, which a gradient scaler leaves out, must not stay in later ones.
            kept.copy_((matrix - one @ other.T).nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0))

    def _packed(self, buffer: torch.Tensor | None, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        if buffer is None:
            buffer = self.wire.empty(sum(part.numel() for part in parts), parts[0].dtype, parts[0].device)
        return torch.cat([part.reshape(-1) for part in parts], out=buffer)


class _Iteration:
    def __init__(self, state: LowRank, work: Work, first: torch.Tensor, flat: torch.Tensor, label: str) -> None:
        self._state, self._work, self._first, self._flat, self._label = state, work, first, flat, label

    def wait(self) -> None:
        state, flat = self._state, self._flat
        self._work.wait()
        parts = self._first.split([*_sizes(state), *(part.numel() for part in state.rest(flat))])
        count = len(state.sides)
        left = [torch.linalg.qr(part.view(rows, -1)).Q for part, (_, rows, _) in zip(parts, state.sides, strict=False)]
        right = [matrix.T @ one for matrix, one in zip(state.matrices(flat), left, strict=True)]
        message, work = state.send_right(right, f"{self._label}, second half")
        state.keep(flat, left, right)
        work.wait()
        summed = message.split([other.numel() for other in right])
        state.right = [part.view_as(other).clone() for part, other in zip(summed, right, strict=True)]
        for matrix, one, other in zip(state.matrices(flat), left, state.right, strict=True):
            torch.mm(one, other.T, out=matrix)
        for target, part in zip(state.rest(flat), parts[count:], strict=True):
            target.copy_(part)
        for other in state.right:
            other.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)


def _sizes(state: LowRank) -> list[int]:
    return [rows * right.shape[1] for (_, rows, _), right in zip(state.sides, state.right, strict=True)]
