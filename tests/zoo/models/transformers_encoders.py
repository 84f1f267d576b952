"""Text encoders of transformers."""

from __future__ import annotations

from tests.zoo.models.hugging_face import NARROW, VOCABULARY, masked_text, pretrained

__all__ = ["MODELS"]

MODELS = [
    pretrained("bert", "BertForMaskedLM", masked_text, "encoder", **NARROW),
    pretrained("roberta", "RobertaForMaskedLM", masked_text, "encoder", **NARROW),
    pretrained(
        "distilbert", "DistilBertForMaskedLM", masked_text, "encoder", vocab_size=VOCABULARY, dim=32, hidden_dim=64,
        n_layers=2, n_heads=4, max_position_embeddings=64,
    ),
    pretrained("electra", "ElectraForMaskedLM", masked_text, "encoder", **NARROW, embedding_size=16),
    pretrained("albert", "AlbertForMaskedLM", masked_text, "encoder", **NARROW, embedding_size=16),
    pretrained(
        "deberta-v2", "DebertaV2ForMaskedLM", masked_text, "encoder", **NARROW, relative_attention=True,
        pos_att_type=["p2c", "c2p"], position_buckets=8, norm_rel_ebd="layer_norm", share_att_key=True,
    ),
    pretrained("mpnet", "MPNetForMaskedLM", masked_text, "encoder", **NARROW),
    pretrained("modernbert", "ModernBertForMaskedLM", masked_text, "encoder", **NARROW, cls_token_id=1,
        sep_token_id=2, attn_implementation="sdpa"),
    pretrained("fnet", "FNetForMaskedLM", lambda size: {
        name: value for name, value in masked_text(size).items() if name != "attention_mask"  # type: ignore[union-attr]
    }, "encoder", **NARROW, unused=True),
    pretrained("roformer", "RoFormerForMaskedLM", masked_text, "encoder", **NARROW),
    pretrained("squeezebert", "SqueezeBertForMaskedLM", masked_text, "encoder", **NARROW, embedding_size=32,
        unused=True),
    pretrained("convbert", "ConvBertForMaskedLM", masked_text, "encoder", **NARROW, embedding_size=32),
    pretrained("longformer", "LongformerForMaskedLM", masked_text, "encoder", **NARROW, attention_window=4,
        unused=True),
    pretrained("funnel", "FunnelForMaskedLM", masked_text, "encoder", vocab_size=VOCABULARY, block_sizes=[1, 1],
        num_decoder_layers=1, d_model=32, n_head=4, d_head=8, d_inner=64),
    pretrained("xlnet", "XLNetLMHeadModel", masked_text, "encoder", vocab_size=VOCABULARY, d_model=32, n_layer=2,
        n_head=4, d_inner=64, unused=True),
    pretrained("esm", "EsmForMaskedLM", masked_text, "encoder", **NARROW, mask_token_id=3, token_dropout=True,
        position_embedding_type="rotary", unused=True),
]  # fmt: skip
