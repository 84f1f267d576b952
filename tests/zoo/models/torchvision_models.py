"""Models of torchvision, narrowed by their constructors' own arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.zoo.entry import Call, Entry

__all__ = ["MODELS"]


def _model(name: str, build: Callable[[Any], nn.Module], *, shape: tuple[int, ...] = (3, 64, 64), **more: Any) -> Entry:
    def made() -> nn.Module:
        from torchvision import models

        return build(models)

    def inputs(size: int) -> Call:
        return (torch.randn(size, *shape),)

    return Entry(name=f"torchvision-{name}", library="torchvision", build=made, inputs=inputs,
        tags=frozenset({"vision"}), **more)  # fmt: skip


def _resnet(models: Any) -> nn.Module:
    made: nn.Module = models.resnet18()
    made.layer3 = made.layer4 = nn.Identity()  # which have 95% of the parameters
    made.fc = nn.Linear(128, 10)
    return made


def _regnet(models: Any) -> nn.Module:
    sizes = models.regnet.BlockParams([1, 2], [16, 32], [8, 8], [1.0, 1.0], [2, 2], se_ratio=0.25)
    made: nn.Module = models.RegNet(sizes, num_classes=10, stem_width=8)
    return made


def _deeplab(models: Any) -> nn.Module:
    narrow = models.mobilenet_v2(width_mult=0.1).features
    backbone = models._utils.IntermediateLayerGetter(narrow, {"3": "out"})
    head = models.segmentation.deeplabv3.DeepLabHead(8, 2, (2, 3))
    made: nn.Module = models.segmentation.DeepLabV3(backbone, head)
    return made


MODELS = [
    _model("resnet", _resnet),
    _model("mobilenet-v2", lambda models: models.mobilenet_v2(width_mult=0.25, num_classes=10)),
    _model("shufflenet-v2", lambda models: models.shufflenet_v2_x0_5(num_classes=10)),
    _model("squeezenet", lambda models: models.squeezenet1_1(num_classes=10)),
    _model("mnasnet", lambda models: models.MNASNet(0.25, num_classes=10)),
    _model("densenet", lambda models: models.DenseNet(8, (2, 2, 2), 16, num_classes=10, drop_rate=0.1)),
    _model("regnet", _regnet),
    _model("vit", lambda models: models.VisionTransformer(32, 8, 2, 4, 32, 64, dropout=0.1, num_classes=10),
        shape=(3, 32, 32)),
    _model("swin", lambda models: models.SwinTransformer([2, 2], 16, [1, 1], [2, 4], [4, 4],
        stochastic_depth_prob=0.1, num_classes=10), shape=(3, 32, 32)),
    _model("maxvit", lambda models: models.MaxVit((64, 64), 8, 2, [8, 16], [1, 1], 4, 0.1, num_classes=10)),
    _model("deeplabv3", _deeplab, shape=(3, 32, 32)),
]  # fmt: skip
