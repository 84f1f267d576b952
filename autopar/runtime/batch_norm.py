"""Synchronised batch normalisation: statistics of the batches of all ranks, on any device.

The method is that of ``nn.SyncBatchNorm``, whose own forward refuses the CPU: every rank sends the mean, the sum of
squared deviations and the count of its batch, which are merged without cancellation (Chan, Golub and LeVeque, 1983).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from autopar import compat, ops
from autopar.errors import OptionError
from autopar.runtime.collectives import Collectives

__all__ = ["SharedNorms"]


class SharedNorms:
    """Lets modules of a model normalise by the statistics of all ranks; what ``ops.sync_batch_norm`` means for them.

    Their messages, which forward and backward wait for, have a process group of their own, so that they are in order
    among themselves whatever travels beside them. It is made in the first forward, on all ranks alike.

    Args:
        model: the owner.
        every: all of its batch norms, and not only those of ``nn.SyncBatchNorm``.
        connect: makes the collectives, for the process group that a module names, or for all ranks; None where a rank
            is alone.

    Raises:
        OptionError: one of them normalises in a forward of its own, which cannot be made to share.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        every: bool,
        connect: Callable[[dist.ProcessGroup | None], Collectives] | None,
    ) -> None:
        kind = nn.modules.batchnorm._BatchNorm if every else nn.SyncBatchNorm
        self._names = {module: name for name, module in model.named_modules() if isinstance(module, kind)}
        self._refuse_own_forwards()
        self._connect = None if connect is None else functools.cache(connect)
        ops.share_statistics(self._names, None if connect is None else self)
        _serve(self._names)

    def __call__(
        self,
        module: nn.Module,
        input: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        factor: float,
    ) -> torch.Tensor:
        """The module's output; updates its running statistics.

        Raises:
            ValueError: all ranks together have one value a channel; raised alike on all of them.
            RankLostError: another rank does not take part.
        """
        assert isinstance(module, nn.modules.batchnorm._BatchNorm)
        assert self._connect is not None
        collectives = self._connect(getattr(module, "process_group", None))
        running = (module.running_mean, module.running_var) if module.track_running_stats else (None, None)
        label = f"the statistics of {self._names.get(module) or type(module).__name__}"
        output: torch.Tensor = _Normalise.apply(input, weight, bias, *running, module.eps, factor, collectives, label)
        return output

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._names)

    def _refuse_own_forwards(self) -> None:
        """Subclasses share where their forward calls torch's, and not where it repeats what that does."""
        for module, name in self._names.items():
            forward = compat.original_class(module).forward
            code = inspect.unwrap(forward).__code__
            if not forward.__module__.startswith("torch.nn.") and "forward" not in code.co_names:
                raise OptionError(
                    f"{name or 'The model'} ({compat.original_class(module).__name__}) cannot share its statistics.",
                    why="Its forward normalises by itself and does not call that of torch's batch norm.",
                    mend="Convert it to a subclass of nn.SyncBatchNorm that does "
                    "(for timm: timm.layers.convert_sync_batchnorm).",
                )

    def refuse_compilation(self) -> None:
        """Says that these modules cannot run under ``compile=True``, where there are any.

        Raises:
            OptionError: there are.
        """
        if self:
            raise OptionError(
                f"compile=True was given, and {self._first()} shares its statistics.",
                why="Its messages are not part of a compiled graph.",
                mend="Leave compile=True out, or use plain batch norms.",
            )

    def refuse_absence(self) -> None:
        """Says that no rank can be without a batch, where there are such modules.

        Raises:
            OptionError: there are.
        """
        if self:
            raise OptionError(
                f"Ranks with different numbers of batches cannot join: {self._first()} shares its statistics.",
                why="A rank without a batch runs no forward, for whose statistics the others would wait.",
                mend="Use plain batch norms, or stop all ranks when one runs out: stop_early=True for autopar.join, "
                "throw_on_early_termination=True for the drop-in.",
            )

    def _first(self) -> str:
        module, name = next(iter(self._names.items()))
        return f"{name or 'the model'} ({compat.original_class(module).__name__})"

    def close(self) -> None:
        """The modules are on their own again."""
        ops.unshare_statistics(self._names)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        running_mean: torch.Tensor | None,
        running_var: torch.Tensor | None,
        eps: float,
        factor: float,
        collectives: Collectives,
        label: str,
    ) -> torch.Tensor:
        mean, squares, count = _merged(_gathered(input, collectives, label))
        if input.numel() <= input.shape[1] and float(count) <= 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got {label} over one on all ranks")
        variance = squares / count
        if running_mean is not None and running_var is not None:
            running_mean.mul_(1.0 - factor).add_(mean.to(running_mean.dtype), alpha=factor)
            running_var.mul_(1.0 - factor).add_((squares / (count - 1)).to(running_var.dtype), alpha=factor)
        ctx.save_for_backward(input, weight, mean, torch.rsqrt(variance + eps), count)
        ctx.collectives, ctx.label = collectives, label
        if not input.numel():
            return torch.empty_like(input)
        weight, bias = (None if one is None else one.to(mean.dtype) for one in (weight, bias))
        return F.batch_norm(input, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        input, weight, mean, scale, count = ctx.saved_tensors
        shape, dims = _across(input)
        wide = gradient.to(mean.dtype)
        centred = input.to(mean.dtype) - mean.view(shape)
        sums = torch.cat([wide.sum(dims), (wide * centred).sum(dims)])
        ours, products = sums.clone().chunk(2)
        result = None
        if ctx.needs_input_grad[0]:
            ctx.collectives.all_reduce(sums, f"the gradient of {ctx.label}").wait()
            total, total_products = (sums / count).chunk(2)
            slope = (total_products * scale.square()).view(shape)
            result = wide.sub_(total.view(shape)) if wide is not gradient else wide - total.view(shape)
            result = result.sub_(centred.mul_(slope)).mul_((scale if weight is None else scale * weight).view(shape))
            result = result.to(input.dtype)
        of_weight = None if weight is None else (products * scale).to(weight.dtype)
        of_bias = ours.to(input.dtype if weight is None else weight.dtype) if ctx.needs_input_grad[2] else None
        return (result, of_weight, of_bias, *[None] * 6)


def _across(input: torch.Tensor) -> tuple[list[int], list[int]]:
    """The shape of a statistic beside the input, and the dims that it is taken over."""
    dims = [dim for dim in range(input.dim()) if dim != 1]
    return [1 if dim in dims else input.shape[dim] for dim in range(input.dim())], dims


def _gathered(input: torch.Tensor, collectives: Collectives, label: str) -> torch.Tensor:
    """A row for each rank: mean and sum of squared deviations of each channel, and the count."""
    dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
    mine = input.new_zeros(2 * input.shape[1] + 1, dtype=dtype)
    count = input.numel() // input.shape[1]
    if count:
        variance, mean = torch.var_mean(input.to(dtype), _across(input)[1], correction=0)
        torch.cat([mean, variance * count, mine.new_full((1,), count)], out=mine)
    rows = mine.new_empty((collectives.world_size, mine.numel()))
    collectives.all_gather(rows, mine, label).wait()
    return rows


def _merged(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean, sum of squared deviations and count over all ranks: the same bits on each."""
    channels = rows.shape[1] // 2
    means, squares, counts = rows[:, :channels], rows[:, channels:-1], rows[:, -1:]
    count = counts.sum()
    mean = (means * counts).sum(0) / count
    return mean, squares.sum(0) + (counts * (means - mean).square()).sum(0), count


def _serve(modules: Iterable[nn.Module]) -> None:
    """Lets the forward of these modules go through ``ops.sync_batch_norm`` also where no graph calls it.

    Opaque pieces and calls that run eagerly call the modules themselves. Their class's forward asks, from now on,
    whether a module is one of those that autopar serves; for any other it is what it was.
    """
    for module in modules:
        kind = nn.SyncBatchNorm if isinstance(module, nn.SyncBatchNorm) else nn.modules.batchnorm._BatchNorm
        if not hasattr(kind.forward, "__wrapped__"):
            kind.forward = _asking(kind.forward)  # type: ignore[method-assign]


def _asking(forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    @functools.wraps(forward)
    def ask(self: nn.Module, input: torch.Tensor) -> torch.Tensor:
        if ops.shares_statistics(self):
            return ops.sync_batch_norm(self, input, self.weight, self.bias)  # type: ignore[arg-type]
        return forward(self, input)

    return ask
