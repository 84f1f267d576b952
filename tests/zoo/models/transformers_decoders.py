"""Decoders of transformers: language models, mixtures of experts, state space models."""

from __future__ import annotations

from tests.zoo.models.hugging_face import NARROW, VOCABULARY, pretrained, text

__all__ = ["MODELS"]

_IDS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_GPT2 = {**_IDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
_GROUPED = {**NARROW, "num_key_value_heads": 2}
_EXPERTS = {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}

MODELS = [
    pretrained("gpt2", "GPT2LMHeadModel", text, "decoder", **_GPT2),
    pretrained(
        "gpt2-checkpointed", "GPT2LMHeadModel", text, "decoder", "checkpoint", **_GPT2,
        change=lambda model: model.gradient_checkpointing_enable(),  # type: ignore[operator]
    ),
    pretrained(
        "gpt-neo", "GPTNeoForCausalLM", text, "decoder", **_IDS, hidden_size=32, num_layers=2, num_heads=4,
        max_position_embeddings=64, intermediate_size=64, attention_types=[[["global", "local"], 1]], window_size=4,
    ),
    pretrained("gpt-neox", "GPTNeoXForCausalLM", text, "decoder", **NARROW),
    pretrained("gptj", "GPTJForCausalLM", text, "decoder", **_GPT2, rotary_dim=4),
    pretrained(
        "opt", "OPTForCausalLM", text, "decoder", **_IDS, hidden_size=32, ffn_dim=64, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64, word_embed_proj_dim=32,
    ),
    pretrained("bloom", "BloomForCausalLM", text, "decoder", **_IDS, hidden_size=32, n_layer=2, n_head=4),
    pretrained(
        "falcon", "FalconForCausalLM", text, "decoder", **_IDS, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=4,
    ),
    pretrained("llama", "LlamaForCausalLM", text, "decoder", **_GROUPED),
    pretrained(
        "llama-checkpointed", "LlamaForCausalLM", text, "decoder", "checkpoint", **_GROUPED,
        change=lambda model: model.gradient_checkpointing_enable(),  # type: ignore[operator]
    ),
    pretrained("llama-eager-attention", "LlamaForCausalLM", text, "decoder", **_GROUPED, attn_implementation="eager"),
    pretrained("mistral", "MistralForCausalLM", text, "decoder", **_GROUPED, sliding_window=6),
    pretrained("qwen2", "Qwen2ForCausalLM", text, "decoder", **_GROUPED),
    pretrained("qwen3", "Qwen3ForCausalLM", text, "decoder", **_GROUPED, head_dim=8),
    pretrained("gemma", "GemmaForCausalLM", text, "decoder", **_GROUPED, head_dim=8),
    pretrained("gemma2", "Gemma2ForCausalLM", text, "decoder", **_GROUPED, head_dim=8),
    pretrained("phi", "PhiForCausalLM", text, "decoder", **_GROUPED),
    pretrained("phi3", "Phi3ForCausalLM", text, "decoder", **_GROUPED),
    pretrained("stablelm", "StableLmForCausalLM", text, "decoder", **_GROUPED),
    pretrained("olmo2", "Olmo2ForCausalLM", text, "decoder", **_GROUPED),
    pretrained("starcoder2", "Starcoder2ForCausalLM", text, "decoder", **_GROUPED),
    pretrained("granite", "GraniteForCausalLM", text, "decoder", **_GROUPED),
    pretrained("mixtral", "MixtralForCausalLM", text, "decoder", "experts", **_EXPERTS, unused=True),
    pretrained(
        "qwen2-moe", "Qwen2MoeForCausalLM", text, "decoder", "experts", **_GROUPED, num_experts=4,
        num_experts_per_tok=2, moe_intermediate_size=32, shared_expert_intermediate_size=32, unused=True,
    ),
    pretrained("mamba", "MambaForCausalLM", text, "state space", **_IDS, hidden_size=32, num_hidden_layers=2,
        state_size=8),
    pretrained(
        "mamba2", "Mamba2ForCausalLM", text, "state space", **_IDS, hidden_size=32, num_hidden_layers=2,
        state_size=8, num_heads=8, head_dim=8, n_groups=1, chunk_size=4,
    ),
    pretrained("rwkv", "RwkvForCausalLM", text, "state space", **_IDS, hidden_size=32, num_hidden_layers=2,
        context_length=64),
]  # fmt: skip
