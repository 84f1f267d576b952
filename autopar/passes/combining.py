"""Chooses how one output of the replicas is put together: by value, from the whole batch and its parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from autopar.errors import ModelError
from autopar.partitioner.plan import Combine
from autopar.program import Remark

__all__ = ["Observed", "choose_rule"]

# Parts and whole run the same operations in another order of summation; what mixes samples differs more.
TOLERANCE = {torch.float64: 1e-8, torch.complex128: 1e-8, torch.float16: 2e-2, torch.bfloat16: 5e-2}
DEFAULT_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One output: from the whole batch under two seeds, and from each part."""

    name: str
    whole: torch.Tensor
    again: torch.Tensor
    parts: tuple[torch.Tensor, ...]
    sizes: tuple[int, ...]

    @property
    def random(self) -> bool:
        """Whether the seed decides its value."""
        return not _agree(self.again, self.whole)


def choose_rule(model: str, seen: Observed, dim: int) -> tuple[Combine, list[Remark]]:
    """The rule for one output, and what is to be said about it.

    Raises:
        ModelError: no rule gives the whole batch's value.
    """
    candidates = _candidates(seen, dim)
    if not candidates:
        raise ModelError(
            f"{seen.name} of {model} has the shape {list(seen.whole.shape)} for the whole batch and "
            f"{[list(part.shape) for part in seen.parts]} for its parts.",
            why=f"Neither concatenating along dim {dim} nor adding gives that.",
            mend=_MEND,
        )
    errors = {rule: _difference(value, seen.whole) for rule, value in candidates.items()}
    fitting: list[Combine] = [rule for rule, error in errors.items() if error <= _tolerance(seen.whole)]
    nearest = min(errors, key=errors.__getitem__)
    if seen.random:
        reason = f"{seen.name} is random, so that it cannot be compared by value"
        return nearest, [_unverified(reason, nearest)]
    if not fitting:
        raise ModelError(
            f"{seen.name} of {model} mixes samples across the batch: put together from parts it differs from "
            f"the whole batch's by {errors[nearest]:.1%} at best.",
            why=f"Tried: {', '.join(candidates)}.",
            mend=_MEND,
            code="AP245",
        )
    if "sum" in fitting and len(fitting) > 1:
        reason = f"{seen.name} is zero on the example, so that {' and '.join(fitting)} agree"
        return fitting[0], [_unverified(reason, fitting[0])]
    return fitting[0], []


_MEND = "Use strategy 'ddp', or gather='torch' to concatenate as torch.nn.DataParallel does."


def _unverified(reason: str, rule: Combine) -> Remark:
    return Remark(
        code="AP223",
        kind="missed",
        stage="replicate",
        message=f"{reason}; the parts are put together as {rule}.",
        mend="Compare one step with the plain module, or return per-sample values.",
    )


def _candidates(seen: Observed, dim: int) -> dict[Combine, torch.Tensor]:
    """What each rule that fits the shapes would give, in order of preference."""
    whole, parts = seen.whole, seen.parts
    if all(part.shape == whole.shape for part in parts):
        same: dict[Combine, torch.Tensor] = {"same": _furthest(parts, whole)}
        if whole.dtype == torch.bool:
            return same
        total: dict[Combine, torch.Tensor] = {"sum": torch.stack(parts).sum(0).to(whole.dtype)}
        if not (whole.is_floating_point() or whole.is_complex()):
            return {**total, **same}
        count = sum(seen.sizes)
        mean = torch.stack([part * (n / count) for part, n in zip(parts, seen.sizes, strict=True)]).sum(0)
        return {"mean": mean, **total, **same}
    if whole.dim() > dim and all(part.dim() == whole.dim() for part in parts):
        try:
            joined = torch.cat(parts, dim)
        except RuntimeError:  # other sizes than along dim differ
            return {}
        return {"concat": joined} if joined.shape == whole.shape else {}
    return {}


def _furthest(parts: Sequence[torch.Tensor], whole: torch.Tensor) -> torch.Tensor:
    return max(parts, key=lambda part: _difference(part, whole))


def _difference(one: torch.Tensor, whole: torch.Tensor) -> float:
    """Largest difference, relative to the largest value of the whole; infinite where only one is NaN."""
    if one.numel() == 0:
        return 0.0
    wide = torch.complex128 if whole.is_complex() else torch.float64
    one, whole = one.to("cpu", wide), whole.to("cpu", wide)
    equal = (one == whole) | (one.isnan() & whole.isnan())
    gap = torch.where(equal, 0.0, (one - whole).abs())
    scale = whole.abs().nan_to_num(0.0, posinf=0.0).max()
    worst = (gap / torch.where(scale > 0, scale, 1.0)).max().item()
    return worst if worst == worst else float("inf")


def _agree(one: torch.Tensor, whole: torch.Tensor) -> bool:
    return one.shape == whole.shape and _difference(one, whole) <= _tolerance(whole)


def _tolerance(tensor: torch.Tensor) -> float:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return 0.0
    return TOLERANCE.get(tensor.dtype, DEFAULT_TOLERANCE)
