"""The registry of workloads: a model, a batch for it and a loss, under a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from autopar.verification.sources import Loaded
from benchmarks.foreign import small_bert, small_resnet, small_vit
from benchmarks.libraries import missing
from benchmarks.models import GPT, conv_net, deep_mlp, wide_mlp

__all__ = ["WORKLOADS", "Named", "Workload", "select"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is trained.

    Attributes:
        name: as it is written after ``--workloads``.
        summary: one line for tables and help.
        build: makes the model; seeded by the caller.
        batch: makes one rank's input and target from a generator.
        loss: of the model's output and the target.
        needs: the library that it is from, where that may be missing.
    """

    name: str
    summary: str
    build: Callable[[], nn.Module]
    batch: Callable[[torch.Generator], tuple[Tensor, Tensor]]
    loss: Callable[[Any, Tensor], Tensor]
    needs: str | None = None

    @property
    def absent(self) -> str:
        """Why it cannot be measured here; empty where it can."""
        absent = self.needs is not None and missing(self.needs)
        return f"{self.needs} is not installed (the extra zoo has it)" if absent else ""


@dataclass(frozen=True, slots=True)
class Named:
    """A workload by name, which is what travels to other processes."""

    name: str

    def load(self) -> Loaded:
        """The model, a batch of this rank's own, and the loss."""
        workload = WORKLOADS[self.name]
        model = workload.build()
        rank = dist.get_rank() if dist.is_initialized() else 0
        inputs, target = workload.batch(torch.Generator().manual_seed(rank))
        return Loaded(model, ((inputs,), {}), lambda output: workload.loss(output, target), self.name)


def _regression(rows: int, inputs: int, outputs: int) -> Callable[[torch.Generator], tuple[Tensor, Tensor]]:
    return lambda generator: (
        torch.randn(rows, inputs, generator=generator),
        torch.randn(rows, outputs, generator=generator),
    )


def _tokens(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    tokens = torch.randint(4096, (4, 65), generator=generator)
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def _images(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return (
        torch.randn(8, 3, 32, 32, generator=generator),
        torch.randint(10, (8,), generator=generator),
    )


def _sentences(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randint(1000, (4, 64), generator=generator), torch.randint(2, (4,), generator=generator)


def _pictures(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(4, 3, 64, 64, generator=generator), torch.randint(10, (4,), generator=generator)


def _next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload(
            name="deep",
            summary="64 x Linear(64, 64) + ReLU, batch 16",
            build=deep_mlp,
            batch=_regression(16, 64, 64),
            loss=F.mse_loss,
        ),
        Workload(
            name="wide",
            summary="MLP 1024-4096-4096-1024, batch 16",
            build=wide_mlp,
            batch=_regression(16, 1024, 1024),
            loss=F.mse_loss,
        ),
        Workload(
            name="gpt",
            summary="6 blocks, width 256, vocabulary 4096, 64 tokens, batch 4",
            build=GPT,
            batch=_tokens,
            loss=_next_token_loss,
        ),
        Workload(
            name="conv",
            summary="14 conv + BatchNorm layers, 32x32 images, batch 8",
            build=conv_net,
            batch=_images,
            loss=F.cross_entropy,
        ),
        Workload(
            name="bert",
            summary="BERT of Hugging Face, 4 layers, width 256, 64 tokens, batch 4",
            build=small_bert,
            batch=_sentences,
            loss=lambda output, target: F.cross_entropy(output.logits, target),
            needs="transformers",
        ),
        Workload(
            name="vit",
            summary="ViT of timm, 6 layers, width 192, 64x64 images in patches of 8, batch 4",
            build=small_vit,
            batch=_pictures,
            loss=F.cross_entropy,
            needs="timm",
        ),
        Workload(
            name="resnet",
            summary="ResNet-18 of torchvision, 64x64 images, batch 4",
            build=small_resnet,
            batch=_pictures,
            loss=F.cross_entropy,
            needs="torchvision",
        ),
    )
}


def select(names: str) -> list[Workload]:
    """The workloads of a comma-separated list, in its order.

    >>> [workload.name for workload in select("wide,deep")]
    ['wide', 'deep']

    Raises:
        ValueError: a name is not known.
    """
    unknown = [name for name in names.split(",") if name not in WORKLOADS]
    if unknown:
        raise ValueError(f"There is no workload {unknown[0]!r}. Known: {', '.join(WORKLOADS)}.")
    return [WORKLOADS[name] for name in names.split(",")]
