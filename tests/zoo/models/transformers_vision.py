"""Vision and image-text models of transformers."""

from __future__ import annotations

import torch

from tests.zoo.entry import Call
from tests.zoo.models.hugging_face import NARROW, VOCABULARY, images, pretrained

__all__ = ["MODELS"]

_PATCHES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
_SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 2], "num_heads": [2, 4], "window_size": 4}
_STAGES = {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2}
_RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
_TEXT = {**NARROW, "max_position_embeddings": 32}


def _segments(size: int) -> Call:
    return {"pixel_values": torch.randn(size, 3, 64, 64), "labels": torch.randint(3, (size, 64, 64))}


def _boxes(size: int) -> Call:
    labels = [{"class_labels": torch.tensor([0, 1]), "boxes": torch.rand(2, 4) * 0.5 + 0.1} for _ in range(size)]
    return {"pixel_values": torch.randn(size, 3, 64, 64), "labels": labels}


def _captioned(size: int) -> Call:
    ids = torch.randint(3, VOCABULARY, (size, 10))
    ids[:, -1] = 2
    return {
        "input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.randn(size, 3, 32, 32),
        "return_loss": True,
    }  # fmt: skip


def _questions(size: int) -> Call:
    ids = torch.randint(3, VOCABULARY, (size, 10))
    return {
        "input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids),
        "pixel_values": torch.randn(size, 3, 32, 32), "labels": torch.rand(size, 2),
    }  # fmt: skip


MODELS = [
    pretrained("vit", "ViTForImageClassification", images(32), "vision", **_PATCHES),
    pretrained("deit", "DeiTForImageClassification", images(32), "vision", **_PATCHES),
    pretrained("beit", "BeitForImageClassification", images(32), "vision", **_PATCHES, vocab_size=VOCABULARY),
    pretrained("dinov2", "Dinov2ForImageClassification", images(32), "vision", unused=True, **_PATCHES),
    pretrained("vit-mae", "ViTMAEForPreTraining", images(32, labels=None), "vision", **_PATCHES,
        decoder_hidden_size=16, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
        decoder_intermediate_size=32),
    pretrained("swin", "SwinForImageClassification", images(32), "vision", **_SWIN),
    pretrained("swinv2", "Swinv2ForImageClassification", images(32), "vision", **_SWIN),
    pretrained("convnext", "ConvNextForImageClassification", images(32), "vision", **_STAGES, drop_path_rate=0.1),
    pretrained("convnextv2", "ConvNextV2ForImageClassification", images(32), "vision", **_STAGES),
    pretrained("resnet", "ResNetForImageClassification", images(32), "vision", **_RESNET),
    pretrained("regnet", "RegNetForImageClassification", images(32), "vision", embedding_size=8,
        hidden_sizes=[8, 16], depths=[1, 1], groups_width=4),
    pretrained("segformer", "SegformerForSemanticSegmentation", _segments, "vision", num_encoder_blocks=2,
        depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[16, 32], patch_sizes=[7, 3], strides=[4, 2],
        num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16, num_labels=3, drop_path_rate=0.1),
    pretrained("mobilevit", "MobileViTForImageClassification", images(64), "vision", image_size=64,
        hidden_sizes=[16, 20, 24], neck_hidden_sizes=[8, 8, 16, 24, 32, 32, 64], num_attention_heads=4),
    pretrained("yolos", "YolosForObjectDetection", _boxes, "vision", "detection",
        **{**_PATCHES, "image_size": [64, 64]}, num_detection_tokens=5, num_labels=2),
    pretrained("clip", "CLIPModel", _captioned, "vision", "text", text_config=_TEXT, vision_config=_PATCHES,
        projection_dim=16),
    pretrained("siglip", "SiglipModel", _captioned, "vision", "text", text_config=_TEXT, vision_config=_PATCHES),
    pretrained("vilt", "ViltForQuestionAnswering", _questions, "vision", "text", **{**NARROW, **_PATCHES}),
]  # fmt: skip
