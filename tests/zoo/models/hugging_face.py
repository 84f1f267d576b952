"""What the files of transformers models share: a model from a configuration, and calls with labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.zoo.entry import Call, Entry, own_loss

__all__ = ["NARROW", "VOCABULARY", "images", "masked_text", "pretrained", "text", "text_pairs"]

VOCABULARY = 99
LENGTH = 12
# Sizes that most configurations name alike.
NARROW: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def pretrained(
    name: str,
    architecture: str,
    inputs: Callable[[int], Call],
    *tags: str,
    unused: bool = False,
    loss: Callable[[Any], torch.Tensor] = own_loss,
    change: Callable[[nn.Module], object] | None = None,
    **config: Any,
) -> Entry:
    """An entry for a model of transformers.

    Args:
        name: in the zoo.
        architecture: class of the model, such as ``"GPT2LMHeadModel"``.
        inputs: makes a call.
        *tags: what kind of model it is.
        unused: see ``Entry``.
        loss: of its result.
        change: done to the model before it trains.
        **config: what its configuration has other than by default.
    """

    def build() -> nn.Module:
        import transformers

        made = getattr(transformers, architecture)
        model: nn.Module = made(made.config_class(**config))
        if change is not None:
            change(model)
        return model

    return Entry(
        name=name, library="transformers", build=build, inputs=inputs, loss=loss, tags=frozenset(tags), unused=unused
    )


def _tokens(size: int, length: int = LENGTH) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (size, length))


def text(size: int) -> Call:
    """Token ids, a mask without padding, and labels for causal language modelling."""
    ids = _tokens(size)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}


def masked_text(size: int) -> Call:
    """Token ids of which the first sample is padded, with a label for each token."""
    ids = _tokens(size)
    mask = torch.ones_like(ids)
    ids[0, -4:], mask[0, -4:] = 0, 0
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.where(mask == 1, ids, -100)}


def text_pairs(size: int) -> Call:
    """Source tokens of which the first sample is padded, and target tokens as labels."""
    call = masked_text(size)
    assert isinstance(call, dict)
    return {**call, "labels": _tokens(size, 8)}


def images(pixels: int, *, labels: int | None = 2, channels: int = 3) -> Callable[[int], Call]:
    """Square images, with a class label each where there are labels."""

    def make(size: int) -> Call:
        call = {"pixel_values": torch.randn(size, channels, pixels, pixels)}
        return call if labels is None else {**call, "labels": torch.randint(labels, (size,))}

    return make
