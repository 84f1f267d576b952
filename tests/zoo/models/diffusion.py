"""Denoisers and autoencoders of diffusers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.zoo.entry import Call, Entry

__all__ = ["MODELS"]


def _model(name: str, architecture: str, inputs: Callable[[int], Call], **config: Any) -> Entry:
    def build() -> nn.Module:
        import diffusers

        model: nn.Module = getattr(diffusers, architecture)(**config)
        return model

    return Entry(name=name, library="diffusers", build=build, inputs=inputs, tags=frozenset({"diffusion"}))


def _noisy(channels: int = 3, pixels: int = 16) -> Callable[[int], Call]:
    return lambda size: {
        "sample": torch.randn(size, channels, pixels, pixels), "timestep": torch.randint(1000, (size,)),
    }  # fmt: skip


def _prompted(size: int) -> Call:
    return {
        "sample": torch.randn(size, 4, 16, 16), "timestep": torch.randint(1000, (size,)),
        "encoder_hidden_states": torch.randn(size, 5, 16),
    }  # fmt: skip


def _classified(size: int) -> Call:
    return {
        "hidden_states": torch.randn(size, 4, 8, 8), "timestep": torch.randint(1000, (size,)),
        "class_labels": torch.randint(10, (size,)),
    }  # fmt: skip


def _captioned(size: int) -> Call:
    return {
        "hidden_states": torch.randn(size, 4, 8, 8), "timestep": torch.randint(1000, (size,)),
        "encoder_hidden_states": torch.randn(size, 6, 16), "pooled_projections": torch.randn(size, 16),
    }  # fmt: skip


def _images(size: int) -> Call:
    return {"sample": torch.randn(size, 3, 16, 16)}


_BLOCKS = {"norm_num_groups": 4, "layers_per_block": 1}

MODELS = [
    _model("unet2d", "UNet2DModel", _noisy(), sample_size=16, block_out_channels=(8, 16), attention_head_dim=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"), **_BLOCKS),
    _model("unet2d-condition", "UNet2DConditionModel", _prompted, sample_size=16, block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, attention_head_dim=4, **_BLOCKS),
    _model("dit", "DiTTransformer2DModel", _classified, num_attention_heads=2, attention_head_dim=8, in_channels=4,
        num_layers=2, sample_size=8, patch_size=2, num_embeds_ada_norm=10, norm_num_groups=4),
    _model("sd3", "SD3Transformer2DModel", _captioned, sample_size=8, patch_size=2, in_channels=4, num_layers=2,
        attention_head_dim=8, num_attention_heads=2, joint_attention_dim=16, caption_projection_dim=16,
        pooled_projection_dim=16, out_channels=4, pos_embed_max_size=16),
    _model("autoencoder-kl", "AutoencoderKL", _images, block_out_channels=(8, 16), latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **_BLOCKS),
    _model("vq-model", "VQModel", _images, block_out_channels=(8, 16), latent_channels=4, num_vq_embeddings=16,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **_BLOCKS),
]  # fmt: skip
