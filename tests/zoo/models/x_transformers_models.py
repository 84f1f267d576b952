"""Transformers of x-transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.zoo.entry import Call, Entry, plain_loss

__all__ = ["MODELS"]


def _model(
    name: str, build: Callable[[Any], nn.Module], inputs: Callable[[int], Call], loss: Callable[[Any], torch.Tensor]
) -> Entry:
    def made() -> nn.Module:
        import x_transformers

        return build(x_transformers)

    return Entry(name=f"x-{name}", library="x-transformers", build=made, inputs=inputs, loss=loss,
        tags=frozenset({"text"}))  # fmt: skip


def _tokens(size: int) -> Call:
    return (torch.randint(50, (size, 12)),)


def _pairs(size: int) -> Call:
    return (torch.randint(50, (size, 12)), torch.randint(50, (size, 9)))


def _series(size: int) -> Call:
    return (torch.randn(size, 12, 6),)


def _decoder(x: Any) -> nn.Module:
    layers = x.Decoder(dim=32, depth=2, heads=4, rotary_pos_emb=True, attn_dropout=0.1, ff_glu=True)
    made: nn.Module = x.TransformerWrapper(num_tokens=50, max_seq_len=32, attn_layers=layers)
    return made


def _encoder(x: Any) -> nn.Module:
    layers = x.Encoder(dim=32, depth=2, heads=4, alibi_pos_bias=True, use_rmsnorm=True, ff_dropout=0.1)
    made: nn.Module = x.TransformerWrapper(num_tokens=50, max_seq_len=32, attn_layers=layers)
    return made


def _encoder_decoder(x: Any) -> nn.Module:
    sides = {f"{side}_{key}": value for side in ("enc", "dec")
        for key, value in {"num_tokens": 50, "depth": 1, "heads": 4, "max_seq_len": 32}.items()}  # fmt: skip
    made: nn.Module = x.XTransformer(dim=32, **sides)
    return made


def _autoregressive(x: Any) -> nn.Module:
    made: nn.Module = x.AutoregressiveWrapper(_decoder(x))
    return made


def _continuous(x: Any) -> nn.Module:
    layers = x.Decoder(dim=32, depth=2, heads=4)
    made: nn.Module = x.ContinuousTransformerWrapper(dim_in=6, dim_out=4, max_seq_len=32, attn_layers=layers)
    return made


MODELS = [
    _model("decoder", _decoder, _tokens, plain_loss),
    _model("encoder", _encoder, _tokens, plain_loss),
    _model("encoder-decoder", _encoder_decoder, _pairs, lambda loss: loss),
    _model("autoregressive", _autoregressive, _tokens, lambda loss: loss),
    _model("continuous", _continuous, _series, plain_loss),
]  # fmt: skip
