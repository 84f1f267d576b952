"""Encoder-decoders, speech models and time series models of transformers."""

from __future__ import annotations

import torch

from tests.zoo.entry import Call
from tests.zoo.models.hugging_face import VOCABULARY, pretrained, text_pairs

__all__ = ["MODELS"]

_IDS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
_BART = {
    **_IDS, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64,
}  # fmt: skip
_T5 = {**_IDS, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
_WAVES = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "conv_dim": (16, 16, 16), "conv_stride": (5, 4, 2), "conv_kernel": (10, 4, 3),
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "pad_token_id": 0, "mask_time_length": 2,
    "ctc_zero_infinity": True,
}  # fmt: skip


def _spectrograms(size: int) -> Call:
    return {"input_features": torch.randn(size, 80, 40), "labels": torch.randint(3, VOCABULARY, (size, 6))}


def _waves(size: int) -> Call:
    return {"input_values": torch.randn(size, 4000), "labels": torch.randint(1, VOCABULARY, (size, 5))}


def _audio(size: int) -> Call:
    return {"input_values": torch.randn(size, 64, 32), "labels": torch.randint(2, (size,))}


def _series(size: int) -> Call:
    past = torch.randn(size, 12 + 7, 1)
    return {
        "past_values": past[..., 0], "past_time_features": torch.randn(size, 19, 2),
        "past_observed_mask": torch.ones(size, 19), "future_values": torch.randn(size, 6),
        "future_time_features": torch.randn(size, 6, 2),
    }  # fmt: skip


def _windows(size: int) -> Call:
    return {"past_values": torch.randn(size, 32, 2), "future_values": torch.randn(size, 8, 2)}


MODELS = [
    pretrained("t5", "T5ForConditionalGeneration", text_pairs, "encoder-decoder", **_T5),
    pretrained("t5-gated", "T5ForConditionalGeneration", text_pairs, "encoder-decoder", **_T5,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    pretrained("switch-transformers", "SwitchTransformersForConditionalGeneration", text_pairs, "encoder-decoder",
        "experts", **_T5, num_experts=4, num_sparse_encoder_layers=1, num_sparse_decoder_layers=1, unused=True),
    pretrained("bart", "BartForConditionalGeneration", text_pairs, "encoder-decoder", **_BART),
    pretrained("mbart", "MBartForConditionalGeneration", text_pairs, "encoder-decoder", **_BART),
    pretrained("pegasus", "PegasusForConditionalGeneration", text_pairs, "encoder-decoder", **_BART),
    pretrained("marian", "MarianMTModel", text_pairs, "encoder-decoder", **_BART),
    pretrained("m2m100", "M2M100ForConditionalGeneration", text_pairs, "encoder-decoder", **_BART, unused=True),
    pretrained("whisper", "WhisperForConditionalGeneration", _spectrograms, "speech", **_BART, max_source_positions=20,
        max_target_positions=32),
    pretrained("wav2vec2", "Wav2Vec2ForCTC", _waves, "speech", **_WAVES, unused=True),
    pretrained("hubert", "HubertForCTC", _waves, "speech", **_WAVES, unused=True),
    pretrained("wavlm", "WavLMForCTC", _waves, "speech", **_WAVES, unused=True),
    pretrained("ast", "ASTForAudioClassification", _audio, "speech", hidden_size=32, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=4, max_length=64, num_mel_bins=32),
    pretrained("time-series-transformer", "TimeSeriesTransformerForPrediction", _series, "time series", unused=True,
        prediction_length=6, context_length=12, num_time_features=2, d_model=32, encoder_layers=2, decoder_layers=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32),
    pretrained("patchtst", "PatchTSTForPrediction", _windows, "time series", num_input_channels=2, context_length=32,
        prediction_length=8, patch_length=8, patch_stride=8, d_model=32, ffn_dim=64, num_attention_heads=4,
        num_hidden_layers=2),
]  # fmt: skip
