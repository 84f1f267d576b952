"""All models of the zoo, by name; listing them imports no library."""

from __future__ import annotations

from tests.zoo.entry import Entry
from tests.zoo.models import (
    diffusion,
    medical,
    peft_adapters,
    timm_models,
    torch_nn,
    torchvision_models,
    transformers_decoders,
    transformers_encoders,
    transformers_seq2seq,
    transformers_vision,
    vit_pytorch_models,
    x_transformers_models,
)

__all__ = ["ZOO"]

_FILES = (
    torch_nn,
    transformers_decoders,
    transformers_encoders,
    transformers_seq2seq,
    transformers_vision,
    peft_adapters,
    diffusion,
    medical,
    timm_models,
    torchvision_models,
    vit_pytorch_models,
    x_transformers_models,
)


def _by_name() -> dict[str, Entry]:
    entries = [entry for file in _FILES for entry in file.MODELS]
    found = {entry.name: entry for entry in entries}
    assert len(found) == len(entries), "two models have one name"
    return found


ZOO = _by_name()
