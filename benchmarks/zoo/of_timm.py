"""Architectures of timm: convolutional networks and vision transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from benchmarks.zoo.architecture import Architecture, images
from benchmarks.zoo.packages import timm_package


def model(name: str, **options: Any) -> Callable[[], nn.Module]:
    """A model of timm by its name, for ten classes."""
    return lambda: timm_package().create_model(name, num_classes=10, **options)


def mixer() -> Any:
    """Two blocks."""
    return timm_package().models.mlp_mixer.MlpMixer(10, img_size=32, patch_size=8, num_blocks=2, embed_dim=48)


NARROW = {"channels": (16, 32, 64, 128), "stem_width": 16}
"""A quarter of the width of a ResNet."""

OF_TIMM = {
    "resnet50, streams": Architecture(model("resnet50", **NARROW), images(), "streams", 0.80),
    "resnet101, streams": Architecture(model("resnet101", **NARROW), images(), "streams", 0.80, slow=True),
    "seresnet": Architecture(model("seresnet50", **NARROW), images(), slow=True),
    "skresnet": Architecture(model("skresnet18"), images(), slow=True),
    "eca_resnet": Architecture(model("eca_resnet33ts"), images(), slow=True),
    "res2net": Architecture(model("res2net50_14w_8s"), images(), slow=True),
    "dla": Architecture(model("dla46_c"), images(), slow=True),
    "hrnet": Architecture(model("hrnet_w18_small"), images(), slow=True),
    "cspdarknet": Architecture(model("cspdarknet53"), images(), slow=True),
    "regnet_z": Architecture(model("regnetz_005"), images(), slow=True),
    "repvgg, streams": Architecture(model("repvgg_a0"), images(), "streams", 0.60, slow=True),
    "rexnet": Architecture(model("rexnet_100"), images(), slow=True),
    "ghostnet": Architecture(model("ghostnet_050"), images()),
    "mobilenetv3_small_050": Architecture(model("mobilenetv3_small_050"), images()),
    "mobilenetv4_hybrid": Architecture(model("mobilenetv4_hybrid_medium"), images(), goal=0.55, slow=True),
    "nfnet": Architecture(model("eca_nfnet_l0"), images(), slow=True),
    "bit": Architecture(
        model("resnetv2_50x1_bit", channels=(128, 256, 384, 512)), images(), goal=0.60, slow=True
    ),
    "groupnorm resnet": Architecture(
        model("resnet50_gn", channels=(64, 128, 192, 256)), images(), goal=0.60, slow=True
    ),
    "convnextv2": Architecture(model("convnextv2_atto"), images(), slow=True),
    "mixer": Architecture(mixer, images(32)),
    "vit of timm": Architecture(model("vit_tiny_patch16_224", img_size=64, depth=2), images()),
    "vit of timm, heads": Architecture(
        model("vit_tiny_patch16_224", img_size=64, depth=2), images(), "heads"
    ),
    "deit": Architecture(model("deit_tiny_distilled_patch16_224", img_size=64, depth=2), images()),
    "beit": Architecture(
        model("beit_base_patch16_224", img_size=64, embed_dim=48, num_heads=4, depth=2), images()
    ),
    "cait": Architecture(model("cait_xxs24_224", img_size=64, depth=2), images(), slow=True),
    "xcit": Architecture(model("xcit_nano_12_p16_224", img_size=64, depth=2), images(), slow=True),
    "swin of timm": Architecture(
        model("swin_tiny_patch4_window7_224", img_size=64, window_size=4, depths=(2, 2), num_heads=(3, 6)),
        images(),
    ),
    "coatnet": Architecture(
        model("coatnet_0_rw_224", img_size=96, embed_dim=(16, 32, 64, 96), depths=(1, 1, 1, 1)),
        images(96),
        slow=True,
    ),
    "davit": Architecture(
        model("davit_tiny", depths=(1, 1, 1, 1), embed_dims=(24, 48, 96, 192), num_heads=(3, 6, 12, 24)),
        images(),
        goal=0.50,
        slow=True,
    ),
    "tiny_vit": Architecture(
        model("tiny_vit_5m_224", embed_dims=(32, 48, 64, 80), depths=(1, 1, 2, 1), num_heads=(2, 3, 4, 5)),
        images(),
        slow=True,
    ),
    "pvt_v2": Architecture(model("pvt_v2_b0"), images(), slow=True),
}
"""By name."""
