"""Architectures, small but with every part that the real ones have, and inputs for them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.zoo.torchvision_models import models as tv

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # both warn of what they miss that models don't need
    import timm
    import transformers as hf


@dataclass(frozen=True)
class Architecture:
    """A network, inputs by seed, and which part of its parameters goes at least with 95 % of the gates."""

    build: Callable[[], nn.Module]
    inputs: Callable[[int], Any]
    least: float
    has_float64: bool = True


def images(pixels: int = 64, batch: int = 2) -> Callable[[int], Tensor]:
    return lambda seed: torch.randn(batch, 3, pixels, pixels, generator=torch.Generator().manual_seed(seed))


def tokens(seed: int) -> Tensor:
    return torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(seed))


def both(seed: int) -> dict[str, Tensor]:
    return {"input_ids": tokens(seed), "decoder_input_ids": tokens(seed + 100)}


SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}


def vision(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: getattr(tv, name)(weights=None, num_classes=10, **options)


def resnext() -> Any:
    return tv.ResNet(tv.resnet.Bottleneck, [1, 1, 2, 1], num_classes=10, groups=8, width_per_group=8)


def regnet() -> Any:
    params = tv.regnet.BlockParams.from_init_params(6, 16, 20.0, 2.3, 8, se_ratio=0.25)
    return tv.RegNet(params, num_classes=10)


def efficientnet() -> Any:
    block = tv.efficientnet.MBConvConfig
    stages = [block(1, 3, 1, 16, 8, 1), block(6, 3, 2, 8, 12, 2), block(6, 5, 2, 12, 20, 2)]
    return tv.EfficientNet(stages, dropout=0.2, num_classes=10)


def mixer() -> Any:
    return timm.models.mlp_mixer.MlpMixer(10, img_size=32, patch_size=8, num_blocks=2, embed_dim=48)


def densenet() -> Any:
    return tv.DenseNet(growth_rate=8, block_config=(3, 3), num_init_features=16, num_classes=10)


def convnext() -> Any:
    setting = tv.convnext.CNBlockConfig
    return tv.ConvNeXt([setting(16, 32, 2), setting(32, None, 2)], num_classes=10)


def swin() -> Any:
    return tv.SwinTransformer([4, 4], 24, [2, 2], [3, 6], [4, 4], num_classes=10)


def vit() -> Any:
    return tv.VisionTransformer(32, 8, 2, 4, 32, 48, num_classes=10)


def timm_model(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=10, **options)


def config(kind: str, **options: Any) -> Callable[[], nn.Module]:
    """A Hugging Face model of a class and its configuration."""

    def build() -> nn.Module:
        family = kind.partition("For")[0].removesuffix("LMHeadModel").removesuffix("Model")
        settings = getattr(hf, f"{family}Config")(**options)
        model: nn.Module = getattr(hf, kind)(settings)
        return model

    return build


def clip() -> nn.Module:
    text = {**SMALL, "max_position_embeddings": 20, "projection_dim": 16}
    pixels = {**VISION, "projection_dim": 16}
    model: nn.Module = hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=pixels, projection_dim=16))
    return model


def clip_inputs(seed: int) -> dict[str, Tensor]:
    return {"input_ids": tokens(seed), "pixel_values": images(32)(seed)}


def whisper() -> nn.Module:
    settings = hf.WhisperConfig(
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
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    model: nn.Module = hf.WhisperModel(settings)
    return model


def whisper_inputs(seed: int) -> dict[str, Tensor]:
    sound = torch.randn(2, 8, 40, generator=torch.Generator().manual_seed(seed))
    return {"input_features": sound, "decoder_input_ids": tokens(seed)}


def sound(seed: int) -> Tensor:
    return torch.randn(2, 400, generator=torch.Generator().manual_seed(seed))


class UNet(nn.Module):
    """Down, up by a transposed convolution, and the skipped features concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = self.block(3, 8), self.block(8, 16)
        self.middle = self.block(16, 24)
        self.up2, self.up1 = nn.ConvTranspose2d(24, 16, 2, stride=2), nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.merge2, self.merge1 = self.block(32, 16), self.block(16, 8)
        self.last = nn.Conv2d(8, 2, 1)

    @staticmethod
    def block(before: int, after: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(nn.functional.max_pool2d(first, 2))
        x = self.middle(nn.functional.max_pool2d(second, 2))
        x = self.merge2(torch.cat([second, self.up2(x)], 1))
        answer: Tensor = self.last(self.merge1(torch.cat([first, self.up1(x)], 1)))
        return answer


ARCHITECTURES = {
    "resnet18": Architecture(vision("resnet18"), images(), 0.9),
    "resnext": Architecture(resnext, images(), 0.6),
    "regnet_y": Architecture(regnet, images(), 0.6),
    "densenet": Architecture(densenet, images(), 0.3),
    "googlenet": Architecture(vision("googlenet", init_weights=False), images(), 0.5),
    "squeezenet": Architecture(vision("squeezenet1_1"), images(), 0.9),
    "mobilenet_v2": Architecture(vision("mobilenet_v2"), images(), 0.9),
    "mobilenet_v3": Architecture(vision("mobilenet_v3_small"), images(), 0.9),
    "shufflenet": Architecture(vision("shufflenet_v2_x0_5"), images(), 0.8),
    "mnasnet": Architecture(vision("mnasnet0_5"), images(), 0.9),
    "efficientnet": Architecture(efficientnet, images(), 0.8),
    "convnext": Architecture(convnext, images(), 0.5),
    "swin": Architecture(swin, images(), 0.3),
    "vit": Architecture(vit, images(32), 0.2),
    "unet": Architecture(UNet, images(32), 0.9),
    "timm mobilenet": Architecture(timm_model("mobilenetv3_small_050"), images(), 0.9),
    "timm vit": Architecture(timm_model("vit_tiny_patch16_224", img_size=64, depth=2), images(), 0.7),
    "timm beit": Architecture(
        timm_model("beit_base_patch16_224", img_size=64, embed_dim=48, num_heads=4, depth=2),
        images(),
        0.3,
    ),
    "timm swin": Architecture(
        timm_model(
            "swin_tiny_patch4_window7_224", img_size=64, window_size=4, depths=(2, 2), num_heads=(3, 6)
        ),
        images(),
        0.7,
    ),
    "timm mixer": Architecture(mixer, images(32), 0.5),
    "timm ghostnet": Architecture(timm_model("ghostnet_050"), images(), 0.4),
    "bert": Architecture(config("BertForSequenceClassification", **SMALL), tokens, 0.3),
    "roberta": Architecture(config("RobertaModel", **SMALL), tokens, 0.3),
    "distilbert": Architecture(
        config("DistilBertModel", vocab_size=50, dim=32, n_layers=2, n_heads=4, hidden_dim=48), tokens, 0.3
    ),
    "gpt2": Architecture(
        config(
            "GPT2LMHeadModel", vocab_size=50, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2
        ),
        tokens,
        0.3,
    ),
    "opt": Architecture(
        config(
            "OPTForCausalLM",
            vocab_size=50,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            ffn_dim=48,
            word_embed_proj_dim=32,
        ),
        tokens,
        0.1,
    ),
    "llama": Architecture(config("LlamaForCausalLM", num_key_value_heads=2, **SMALL), tokens, 0.5),
    "mixtral": Architecture(
        config("MixtralForCausalLM", num_key_value_heads=2, num_local_experts=4, **SMALL),
        tokens,
        0.05,
        has_float64=False,
    ),
    "gpt_neox": Architecture(config("GPTNeoXModel", **SMALL), tokens, 0.6),
    "bloom": Architecture(
        config("BloomModel", vocab_size=50, hidden_size=32, n_layer=2, n_head=4), tokens, 0.5
    ),
    "t5": Architecture(
        config(
            "T5ForConditionalGeneration",
            vocab_size=50,
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_heads=4,
        ),
        both,
        0.2,
    ),
    "whisper": Architecture(whisper, whisper_inputs, 0.6),
    "clip": Architecture(clip, clip_inputs, 0.5),
    "wav2vec2": Architecture(
        config(
            "Wav2Vec2Model",
            conv_dim=(16, 16),
            conv_stride=(5, 2),
            conv_kernel=(10, 3),
            num_feat_extract_layers=2,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
            **SMALL,
        ),
        sound,
        0.4,
    ),
    "hf vit": Architecture(config("ViTForImageClassification", **VISION), images(32), 0.4),
}
