"""Vision transformers of vit-pytorch."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from tests.zoo.entry import Call, Entry

__all__ = ["MODELS"]


def _model(name: str, module: str, architecture: str, *, pixels: int = 32, **options: Any) -> Entry:
    def build() -> nn.Module:
        made: nn.Module = getattr(importlib.import_module(f"vit_pytorch.{module}"), architecture)(**options)
        return made

    def inputs(size: int) -> Call:
        return (torch.randn(size, 3, pixels, pixels),)

    return Entry(name=f"vit-pytorch-{name}", library="vit-pytorch", build=build, inputs=inputs,
        tags=frozenset({"vision"}))  # fmt: skip


_SMALL: dict[str, Any] = {"image_size": 32, "patch_size": 8, "num_classes": 10, "dim": 32, "heads": 4, "mlp_dim": 64}
_DROP = {"dropout": 0.1, "emb_dropout": 0.1}

MODELS = [
    _model("vit", "vit", "ViT", **_SMALL, depth=2, **_DROP),
    _model("simple-vit", "simple_vit", "SimpleViT", **_SMALL, depth=2),
    _model("deepvit", "deepvit", "DeepViT", **_SMALL, depth=2, **_DROP),
    _model("cait", "cait", "CaiT", **_SMALL, depth=2, cls_depth=1, **_DROP, layer_dropout=0.05),
    _model("cct", "cct", "CCT", img_size=32, embedding_dim=32, n_conv_layers=1, num_layers=2, num_heads=4,
        mlp_ratio=2.0, num_classes=10),
]  # fmt: skip
