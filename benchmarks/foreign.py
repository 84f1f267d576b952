"""Models of other libraries, small enough for a CPU; the libraries are imported when a model is built."""

from __future__ import annotations

from typing import cast

from torch import nn

from benchmarks.libraries import prepare

__all__ = ["small_bert", "small_resnet", "small_vit"]


def small_bert() -> nn.Module:
    """4 layers of width 256 that classify sentences; no dropout, so that all columns do the same work."""
    prepare()
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=1000,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return cast("nn.Module", BertForSequenceClassification(config))


def small_vit() -> nn.Module:
    """6 layers of width 192 on 64 patches."""
    prepare()
    from timm.models.vision_transformer import VisionTransformer

    return cast(
        "nn.Module",
        VisionTransformer(img_size=64, patch_size=8, embed_dim=192, depth=6, num_heads=3, num_classes=10),
    )


def small_resnet() -> nn.Module:
    """ResNet-18 for ten classes."""
    prepare()
    from torchvision.models import resnet18

    return cast("nn.Module", resnet18(num_classes=10))
