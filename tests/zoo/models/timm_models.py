"""Image classifiers of timm."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from tests.zoo.entry import Call, Entry

__all__ = ["MODELS"]


def _model(name: str, pixels: int = 64, *, architecture: str | None = None, **options: Any) -> Entry:
    """A model of timm's list, or of a class of its own where the list fixes what must be small here."""

    def build() -> nn.Module:
        import timm

        if architecture is None:
            model: nn.Module = timm.create_model(name, num_classes=10, **options)
        else:
            module, kind = architecture.split(".")
            model = getattr(importlib.import_module(f"timm.models.{module}"), kind)(num_classes=10, **options)
        return model

    def inputs(size: int) -> Call:
        return (torch.randn(size, 3, pixels, pixels),)

    return Entry(
        name=f"timm-{name.replace('_', '-')}", library="timm", build=build, inputs=inputs,
        tags=frozenset({"vision"}),
    )  # fmt: skip


_PATCHES = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "num_heads": 4}

MODELS = [
    _model("resnet10t", stem_width=8, channels=(16, 16, 32, 32)),
    _model("mobilenetv3_small_050"),
    _model("mobilenetv2_035", drop_path_rate=0.1, drop_rate=0.1),
    _model("test_efficientnet_gn"),
    _model("test_nfnet"),
    _model("test_byobnet"),
    _model("test_mambaout"),
    _model("ghostnet_050"),
    _model("convnext_atto", dims=(8, 16, 24, 32), depths=(1, 1, 2, 1), drop_path_rate=0.1),
    _model("vit_tiny_patch16_224", 32, **{**_PATCHES, "depth": 2}, drop_path_rate=0.1),
    _model("deit_tiny_distilled_patch16_224", 32, **{**_PATCHES, "depth": 2}),
    _model("mixer_s32_224", 32, architecture="mlp_mixer.MlpMixer", img_size=32, patch_size=8, embed_dim=32,
        num_blocks=2),
    _model("swin_tiny_patch4_window7_224", 32, img_size=32, patch_size=2, window_size=4, embed_dim=16, depths=(1, 1),
        num_heads=(2, 4)),
    _model("xcit_nano_12_p16_224", 32, img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4),
    _model("poolformer_s12", architecture="metaformer.MetaFormer", depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)),
    _model("levit_128s", 64, img_size=64, embed_dim=(32, 32, 32), key_dim=8, num_heads=(2, 2, 2), depth=(1, 1, 1)),
]  # fmt: skip
