"""Frozen models of transformers with trainable adapters of peft."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from tests.zoo.entry import Entry, own_loss
from tests.zoo.models.hugging_face import NARROW, masked_text, text

__all__ = ["MODELS"]


def _adapted(architecture: str, adapter: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import peft
        import transformers

        made = getattr(transformers, architecture)
        base = made(made.config_class(**NARROW))
        model: nn.Module = peft.get_peft_model(base, getattr(peft, adapter)(**options))
        return model

    return build


_LLAMA, _BERT = "LlamaForCausalLM", "BertForMaskedLM"
_CAUSAL = {"task_type": "CAUSAL_LM"}

MODELS = [
    Entry(
        name="llama-lora",
        library="peft",
        build=_adapted(_LLAMA, "LoraConfig", **_CAUSAL, r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.1),
        inputs=text,
        loss=own_loss,
        tags=frozenset({"decoder", "adapter"}),
    ),
    Entry(
        name="llama-ia3",
        library="peft",
        build=_adapted(_LLAMA, "IA3Config", **_CAUSAL, target_modules=["k_proj"], feedforward_modules=[]),
        inputs=text,
        loss=own_loss,
        tags=frozenset({"decoder", "adapter"}),
    ),
    Entry(
        name="bert-lora",
        library="peft",
        build=_adapted(_BERT, "LoraConfig", r=4, target_modules=["query", "value"], use_dora=True),
        inputs=masked_text,
        loss=own_loss,
        tags=frozenset({"encoder", "adapter"}),
    ),
]
