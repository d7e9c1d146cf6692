"""Architectures of transformers: language, sound, pictures, state spaces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.zoo.architecture import (
    Architecture,
    encoder_and_decoder,
    features,
    images,
    normal,
    tokens,
)
from benchmarks.zoo.packages import transformers_package

SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    **SPECIAL,
}
VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}


def model(kind: str, **options: Any) -> Callable[[], nn.Module]:
    """A model of a class, and the options of its configuration."""

    def build() -> nn.Module:
        hf = transformers_package()
        family = kind.partition("For")[0].removesuffix("LMHeadModel").removesuffix("Model")
        made: nn.Module = getattr(hf, kind)(getattr(hf, f"{family}Config")(**options))
        return made

    return build


def clip() -> nn.Module:
    """Text and pictures."""
    hf = transformers_package()
    text = {**SMALL, "max_position_embeddings": 20, "projection_dim": 16}
    pixels = {**VISION, "projection_dim": 16}
    made: nn.Module = hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=pixels, projection_dim=16))
    return made


def clip_inputs(seed: int, batch: int) -> dict[str, Tensor]:
    """As many texts as pictures."""
    return {"input_ids": tokens(seed, batch), "pixel_values": normal(seed, batch, 3, 32, 32)}


def whisper_inputs(seed: int, batch: int) -> dict[str, Tensor]:
    """A spectrogram of eight bands, and tokens."""
    return {"input_features": normal(seed, batch, 8, 40), "decoder_input_ids": tokens(seed, batch)}


def mae_inputs(seed: int, batch: int) -> dict[str, Tensor]:
    """Pictures, and the noise by which patches are hidden: without it each call hides others."""
    return {
        "pixel_values": normal(seed, batch, 3, 32, 32),
        "noise": torch.rand(batch, 16, generator=torch.Generator().manual_seed(seed)),
    }


GPT2 = {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2}

OF_TRANSFORMERS = {
    "bert": Architecture(model("BertForSequenceClassification", **SMALL), tokens),
    "bert, heads": Architecture(model("BertForSequenceClassification", **SMALL), tokens, "heads"),
    "roberta": Architecture(model("RobertaForSequenceClassification", **SMALL), tokens),
    "distilbert": Architecture(
        model(
            "DistilBertForSequenceClassification", vocab_size=50, dim=32, n_layers=2, n_heads=4, hidden_dim=48
        ),
        tokens,
    ),
    "electra": Architecture(model("ElectraForSequenceClassification", embedding_size=16, **SMALL), tokens),
    "deberta_v2": Architecture(
        model(
            "DebertaV2Model",
            relative_attention=True,
            pos_att_type=["p2c", "c2p"],
            max_position_embeddings=20,
            **SMALL,
        ),
        tokens,
        goal=0.25,
    ),
    "gpt2": Architecture(model("GPT2LMHeadModel", **GPT2), tokens),
    "gpt_neox": Architecture(model("GPTNeoXForCausalLM", **SMALL), tokens),
    "bloom": Architecture(
        model("BloomForCausalLM", vocab_size=50, hidden_size=32, n_layer=2, n_head=4), tokens
    ),
    "opt": Architecture(
        model(
            "OPTForCausalLM",
            vocab_size=50,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            ffn_dim=48,
            word_embed_proj_dim=32,
        ),
        tokens,
    ),
    "llama": Architecture(model("LlamaForCausalLM", num_key_value_heads=2, **SMALL), tokens),
    "llama, heads": Architecture(model("LlamaForCausalLM", num_key_value_heads=2, **SMALL), tokens, "heads"),
    "mistral": Architecture(model("MistralForCausalLM", num_key_value_heads=2, **SMALL), tokens),
    "gemma": Architecture(model("GemmaForCausalLM", num_key_value_heads=1, head_dim=8, **SMALL), tokens),
    "phi3, heads": Architecture(
        model("Phi3ForCausalLM", num_key_value_heads=4, **SMALL), tokens, "heads", 0.40
    ),
    "phi3": Architecture(model("Phi3ForCausalLM", num_key_value_heads=4, **SMALL), tokens),
    "falcon": Architecture(
        model("FalconForCausalLM", vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4),
        tokens,
        goal=0.35,
    ),
    "mixtral": Architecture(
        model("MixtralForCausalLM", num_key_value_heads=2, num_local_experts=4, **SMALL), tokens
    ),
    "t5": Architecture(
        model(
            "T5ForConditionalGeneration",
            vocab_size=50,
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_heads=4,
        ),
        encoder_and_decoder,
    ),
    "bart": Architecture(
        model(
            "BartForConditionalGeneration",
            vocab_size=50,
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            max_position_embeddings=20,
            decoder_start_token_id=1,
            **SPECIAL,
        ),
        encoder_and_decoder,
    ),
    "whisper": Architecture(
        model(
            "WhisperForConditionalGeneration",
            vocab_size=50,
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            num_mel_bins=8,
            max_source_positions=20,
            max_target_positions=20,
            decoder_start_token_id=1,
            **SPECIAL,
        ),
        whisper_inputs,
    ),
    "wav2vec2": Architecture(
        model(
            "Wav2Vec2ForCTC",
            conv_dim=(16, 16),
            conv_stride=(5, 2),
            conv_kernel=(10, 3),
            num_feat_extract_layers=2,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
            **SMALL,
        ),
        features(400),
    ),
    "clip": Architecture(clip, clip_inputs),
    "vit of transformers": Architecture(model("ViTForImageClassification", **VISION), images(32)),
    "vit_mae": Architecture(
        model(
            "ViTMAEForPreTraining",
            decoder_hidden_size=24,
            decoder_num_hidden_layers=1,
            decoder_num_attention_heads=4,
            decoder_intermediate_size=40,
            **VISION,
        ),
        mae_inputs,
    ),
    "mamba": Architecture(
        model("MambaModel", vocab_size=50, hidden_size=32, num_hidden_layers=2, state_size=8, **SPECIAL),
        tokens,
        goal=0.30,
    ),
    "mamba2": Architecture(
        model(
            "Mamba2Model",
            vocab_size=50,
            hidden_size=32,
            num_hidden_layers=2,
            state_size=8,
            num_heads=8,
            head_dim=8,
            n_groups=1,
            chunk_size=4,
            **SPECIAL,
        ),
        tokens,
        goal=0.30,
    ),
}
"""By name."""
