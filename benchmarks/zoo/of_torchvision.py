"""Architectures of torchvision: convolutional networks, segmentation, detection heads, video."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from benchmarks.zoo.architecture import Architecture, features, images, normal
from benchmarks.zoo.packages import torchvision_models


def classifier(name: str, **options: Any) -> Callable[[], nn.Module]:
    """A model of torchvision by its name, for ten classes."""
    return lambda: getattr(torchvision_models(), name)(weights=None, num_classes=10, **options)


def alexnet() -> Any:
    """As published, but for the width of the hidden linear layers: 256 instead of 4096."""
    model = torchvision_models().alexnet(num_classes=10)
    model.classifier[1], model.classifier[4] = nn.Linear(256 * 36, 256), nn.Linear(256, 256)
    model.classifier[6] = nn.Linear(256, 10)
    return model


def vgg() -> Any:
    """VGG-11 with BatchNorm, an eighth as wide."""
    tv = torchvision_models()
    layers = tv.vgg.make_layers([8, "M", 16, "M", 32, 32, "M", 64, 64, "M", 64, 64, "M"], batch_norm=True)
    model = tv.VGG(layers, num_classes=10)
    model.classifier[0], model.classifier[3] = nn.Linear(64 * 49, 128), nn.Linear(128, 128)
    model.classifier[6] = nn.Linear(128, 10)
    return model


def resnext() -> Any:
    """Blocks of eight groups, as of ResNeXt-50."""
    tv = torchvision_models()
    return tv.ResNet(tv.resnet.Bottleneck, [1, 1, 2, 1], num_classes=10, groups=8, width_per_group=8)


def regnet_y() -> Any:
    """With groups, and squeeze and excitation."""
    tv = torchvision_models()
    params = tv.regnet.BlockParams.from_init_params(6, 16, 20.0, 2.3, 8, se_ratio=0.25)
    return tv.RegNet(params, num_classes=10)


def efficientnet() -> Any:
    """Three stages of MBConv."""
    tv = torchvision_models()
    block = tv.efficientnet.MBConvConfig
    stages = [block(1, 3, 1, 16, 8, 1), block(6, 3, 2, 8, 12, 2), block(6, 5, 2, 12, 20, 2)]
    return tv.EfficientNet(stages, dropout=0.2, num_classes=10)


def densenet() -> Any:
    """Two blocks of three layers."""
    return torchvision_models().DenseNet(
        growth_rate=8, block_config=(3, 3), num_init_features=16, num_classes=10
    )


def convnext() -> Any:
    """Two stages."""
    tv = torchvision_models()
    setting = tv.convnext.CNBlockConfig
    return tv.ConvNeXt([setting(16, 32, 2), setting(32, None, 2)], num_classes=10)


def swin() -> Any:
    """Two stages of two blocks."""
    return torchvision_models().SwinTransformer([4, 4], 24, [2, 2], [3, 6], [4, 4], num_classes=10)


def vit() -> Any:
    """Two blocks, with torch's own attention."""
    return torchvision_models().VisionTransformer(32, 8, 2, 4, 32, 48, num_classes=10)


def maxvit() -> Any:
    """Two stages."""
    return torchvision_models().MaxVit(
        (64, 64), 16, 4, [16, 32], [1, 1], head_dim=8, stochastic_depth_prob=0.0, num_classes=10
    )


def segmentation(name: str) -> Callable[[], nn.Module]:
    """A segmentation model by name."""
    return lambda: getattr(torchvision_models().segmentation, name)(
        weights=None, weights_backbone=None, num_classes=5, aux_loss=False
    )


def lraspp() -> Any:
    """LR-ASPP, which has no auxiliary loss."""
    return torchvision_models().segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=5
    )


def retinanet_heads() -> Any:
    """Classification and regression, each of four convolutions, over every level of a pyramid."""
    torchvision_models()
    from torchvision.models.detection.retinanet import RetinaNetHead

    return RetinaNetHead(32, 3, 4)


def pyramid(seed: int, batch: int) -> tuple[list[Tensor]]:
    """Two levels of features."""
    return ([normal(seed, batch, 32, 12, 12), normal(seed + 100, batch, 32, 6, 6)],)


class SSDLite(nn.Module):
    """A small backbone of two levels under the heads of SSDlite."""

    def __init__(self) -> None:
        super().__init__()
        torchvision_models()
        from torchvision.models.detection.ssdlite import SSDLiteHead

        self.first = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU6())
        self.second = nn.Sequential(nn.Conv2d(24, 40, 3, 2, 1), nn.BatchNorm2d(40), nn.ReLU6())
        self.head = SSDLiteHead([24, 40], [3, 3], 4, nn.BatchNorm2d)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Scores and offsets."""
        first = self.first(x)
        answer: dict[str, Tensor] = self.head([first, self.second(first)])
        return answer


def mvit() -> Any:
    """Three blocks, the second of which pools."""
    tv = torchvision_models()
    setting = tv.video.mvit.MSBlockConfig
    blocks = [
        setting(1, 16, 16, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 4, 4]),
        setting(2, 16, 32, [3, 3, 3], [3, 3, 3], [1, 2, 2], [1, 2, 2]),
        setting(2, 32, 32, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 2, 2]),
    ]
    return tv.video.MViT(
        (32, 32), 8, blocks, residual_pool=True, residual_with_cls_embed=False, rel_pos_embed=True,
        proj_after_attn=True, num_classes=10,
    )  # fmt: skip


def video(name: str) -> Callable[[], nn.Module]:
    """A video model by its name."""
    return lambda: getattr(torchvision_models().video, name)(weights=None, num_classes=10)


OF_TORCHVISION = {
    "alexnet": Architecture(alexnet, images(224), slow=True),
    "vgg": Architecture(vgg, images()),
    "resnet18": Architecture(classifier("resnet18"), images()),
    "resnet18, streams": Architecture(classifier("resnet18"), images(), where="streams", slow=True),
    "resnext": Architecture(resnext, images()),
    "regnet_y": Architecture(regnet_y, images()),
    "densenet": Architecture(densenet, images()),
    "googlenet": Architecture(classifier("googlenet", init_weights=False), images()),
    "inception_v3": Architecture(
        classifier("inception_v3", init_weights=False, aux_logits=False), images(96), slow=True
    ),
    "squeezenet": Architecture(classifier("squeezenet1_1"), images()),
    "mobilenet_v2": Architecture(classifier("mobilenet_v2"), images()),
    "mobilenet_v2, streams": Architecture(classifier("mobilenet_v2"), images(), where="streams", slow=True),
    "mobilenet_v3": Architecture(classifier("mobilenet_v3_small"), images()),
    "shufflenet_v2": Architecture(classifier("shufflenet_v2_x0_5"), images()),
    "mnasnet": Architecture(classifier("mnasnet0_5"), images()),
    "efficientnet": Architecture(efficientnet, images()),
    "convnext": Architecture(convnext, images()),
    "swin": Architecture(swin, images()),
    "vit": Architecture(vit, images(32)),
    "maxvit": Architecture(maxvit, images(), slow=True),
    "fcn_resnet50": Architecture(segmentation("fcn_resnet50"), images(), slow=True),
    "deeplabv3": Architecture(segmentation("deeplabv3_mobilenet_v3_large"), images(), slow=True),
    "lraspp": Architecture(lraspp, images(), slow=True),
    "retinanet heads": Architecture(retinanet_heads, pyramid, goal=0.80),
    "ssdlite": Architecture(SSDLite, images(32)),
    "r3d_18": Architecture(video("r3d_18"), features(3, 8, 32, 32), slow=True),
    "mvit": Architecture(mvit, features(3, 8, 32, 32)),
}
"""By name."""
