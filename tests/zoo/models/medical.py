"""Segmentation and other networks of monai."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.zoo.entry import Call, Entry

__all__ = ["MODELS"]


def _model(name: str, architecture: str, inputs: Callable[[int], Call], unused: bool = False, **options: Any) -> Entry:
    def build() -> nn.Module:
        import monai.networks.nets

        model: nn.Module = getattr(monai.networks.nets, architecture)(**options)
        return model

    return Entry(name=name, library="monai", build=build, inputs=inputs, tags=frozenset({"medical"}), unused=unused)


def _volumes(pixels: int, dims: int = 3) -> Callable[[int], Call]:
    return lambda size: (torch.randn(size, 1, *[pixels] * dims),)


def _noisy(size: int) -> Call:
    return {"x": torch.randn(size, 1, 16, 16), "timesteps": torch.randint(1000, (size,))}


_FLAT = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
_SOLID = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}

MODELS = [
    _model("monai-unet", "UNet", _volumes(16), **_SOLID, channels=(4, 8, 16), strides=(2, 2), num_res_units=1,
        dropout=0.1),
    _model("monai-basic-unet", "BasicUNet", _volumes(32, 2), **_FLAT, features=(8, 8, 16, 16, 32, 8)),
    _model("monai-attention-unet", "AttentionUnet", _volumes(16, 2), **_FLAT, channels=(4, 8, 16), strides=(2, 2)),
    _model("monai-dynunet", "DynUNet", _volumes(16), **_SOLID, kernel_size=[3, 3, 3], strides=[1, 2, 2],
        upsample_kernel_size=[2, 2], filters=[4, 8, 16]),
    _model("monai-segresnet", "SegResNet", _volumes(16), **_SOLID, init_filters=8, blocks_down=(1, 1), blocks_up=(1,),
        dropout_prob=0.1),
    _model("monai-unetr", "UNETR", _volumes(16), unused=True, in_channels=1, out_channels=2, img_size=16,
        feature_size=4, hidden_size=24, mlp_dim=48, num_heads=4),
    _model("monai-swin-unetr", "SwinUNETR", _volumes(64, 2), **_FLAT, feature_size=12, depths=(1, 1, 1, 1),
        num_heads=(1, 2, 2, 2)),
    _model("monai-densenet", "DenseNet", _volumes(32, 2), **_FLAT, init_features=8, growth_rate=4, block_config=(2, 2)),
    _model("monai-diffusion-unet", "DiffusionModelUNet", _noisy, **_FLAT, channels=(8, 16),
        attention_levels=(False, True), num_res_blocks=1, norm_num_groups=4, num_head_channels=8),
    _model("monai-vit", "ViT", _volumes(16, 2), unused=True, in_channels=1, img_size=(16, 16), patch_size=(4, 4),
        hidden_size=24, mlp_dim=48, num_layers=2, num_heads=4, classification=True, spatial_dims=2),
]  # fmt: skip
