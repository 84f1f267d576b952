"""The ways in which a workload is run: the columns of the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import autopar
from autopar.strategies import DDP

__all__ = ["AUTOPAR", "PLAIN", "VARIANTS", "Variant", "torch_ddp"]

# Larger than any model here, in MiB.
_ONE_BUCKET = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One column.

    Attributes:
        name: in the JSON and in code.
        title: at the head of the column.
        wrap: from a fresh copy of the model and one input to what is called in a step. Runs in
            every rank, with the default process group up.
    """

    name: str
    title: str
    wrap: Callable[[nn.Module, Tensor], nn.Module]


PLAIN = Variant(name="plain", title="plain", wrap=lambda model, inputs: model)
AUTOPAR = Variant(
    name="autopar",
    title="autopar",
    wrap=lambda model, inputs: autopar.parallelize(model, strategy=DDP(), example_inputs=(inputs,)),
)
VARIANTS: tuple[Variant, ...] = (
    PLAIN,
    Variant(name="ddp", title="DDP", wrap=lambda model, inputs: DistributedDataParallel(model)),
    Variant(
        name="ddp-static",
        title="DDP static",
        wrap=lambda model, inputs: DistributedDataParallel(model, gradient_as_bucket_view=True, static_graph=True),
    ),
    Variant(
        name="ddp-one-bucket",
        title="DDP one bucket",
        wrap=lambda model, inputs: DistributedDataParallel(
            model, gradient_as_bucket_view=True, bucket_cap_mb=_ONE_BUCKET
        ),
    ),
    AUTOPAR,
)


def torch_ddp(variants: tuple[Variant, ...] = VARIANTS) -> list[str]:
    """Names of the variants that are torch's own DDP; the fastest of them is "DDP's best"."""
    return [variant.name for variant in variants if variant.name.startswith("ddp")]
