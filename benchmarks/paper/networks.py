"""The networks of App. C as the released code builds them, with noise on their structures."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.training_step.large_networks import ResNet50, ViT
from benchmarks.zoo.packages import timm_package, torchvision_models
from bmrs_kernels.contract import Share
from bmrs_torch import MultiplicativeNoise, insert_noise

LARGE = ("resnet50", "vit")
PRETRAINED, RANDOM = "pretrained", "random"
_ZOOS = {"resnet50": "torchvision", "vit": "timm"}
_WHERE = {"resnet50": "batchnorm", "vit": "blocks"}


class WeightsError(ValueError):
    """The weights that a network is to start from aren't to be had."""


def mlp(inputs: int, classes: int, *, layers: int, width: int, noise: bool) -> nn.Sequential:
    """Stack an input layer, `layers` hidden ones, each followed by tanh and noise, and an output layer.

    The released code counts layers so: its MLP "of one layer" has two with noise.
    """
    modules: list[nn.Module] = [nn.Flatten()]
    for fan_in in [inputs, *[width] * layers]:
        modules += [nn.Linear(fan_in, width), nn.Tanh()]
        modules += [MultiplicativeNoise(width)] * noise
    return nn.Sequential(*modules, nn.Linear(width, classes))


def lenet5(channels: int, classes: int, *, noise: bool, share: Share) -> nn.Sequential:
    """Stack two convolutions of 6 and 16 filters per channel and three linear layers, for 32×32 images.

    In linear layers each sample has one activation of a structure, so that `share` matters to filters only.
    """
    filters, hidden = (6 * channels, 16 * channels), (120 * channels, 84 * channels)

    def noisy(width: int, share: Share = "sample") -> list[nn.Module]:
        return [nn.ReLU()] + [MultiplicativeNoise(width, share=share)] * noise

    return nn.Sequential(
        nn.Conv2d(channels, filters[0], 5),
        *noisy(filters[0], share),
        nn.MaxPool2d(2),
        nn.Conv2d(filters[0], filters[1], 5),
        *noisy(filters[1], share),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(25 * filters[1], hidden[0]),
        *noisy(hidden[0]),
        nn.Linear(hidden[0], hidden[1]),
        *noisy(hidden[1]),
        nn.Linear(hidden[1], classes),
    )


def large(network: str, classes: int, weights: str, file: Path | None) -> nn.Module:
    """ResNet-50 or ViT-B/16 without noise.

    Parameters
    ----------
    network : {"resnet50", "vit"}
        With random weights written here; else torchvision's or timm's.
    classes : int
        Of the new last layer.
    weights : str
        ``"pretrained"``, by the zoo, which may download them; ``"random"``; else those in `file`.
    file : Path, optional
        A state_dict of the zoo's network, .safetensors or what ``torch.save`` writes, whatever its classes.

    Raises
    ------
    WeightsError
        If the zoo is missing where it is needed, or the weights can't be had or don't fit.
    """
    if weights == RANDOM:
        return ResNet50(classes) if network == "resnet50" else ViT(classes)
    if find_spec(_ZOOS[network]) is None:
        raise WeightsError(
            f"weights {weights!r} are for the {network} of {_ZOOS[network]}, which isn't installed: "
            f"`pip install {_ZOOS[network]}`, or take --weights random"
        )
    try:
        model = _of_zoo(network, classes, pretrained=weights == PRETRAINED)
        if file is not None:
            _load(model, file)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise WeightsError(
            f"the weights {weights!r} of {network} can't be had ({type(error).__name__}: "
            f"{' '.join(str(error).split())}); take a file by --weights FILE, or --weights random"
        ) from error
    return model


def _of_zoo(network: str, classes: int, *, pretrained: bool) -> nn.Module:
    if network == "vit":
        name = "vit_base_patch16_224"
        vit: nn.Module = timm_package().create_model(name, pretrained=pretrained, num_classes=classes)
        return vit
    torchvision = torchvision_models()
    resnet: nn.Module = torchvision.resnet50(weights="IMAGENET1K_V1" if pretrained else None)
    resnet.fc = nn.Linear(2048, classes)
    return resnet


def _load(model: nn.Module, file: Path) -> None:
    """Load weights; those of a last layer of other classes stay as they were drawn."""
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(file)
    else:
        state = torch.load(file, map_location="cpu", weights_only=True)
    own = model.state_dict()
    head = {name for name in own if name.startswith(("fc.", "head."))}
    other = {name for name in head if name in state and state[name].shape != own[name].shape}
    model.load_state_dict({**state, **{name: own[name] for name in other}})


def build(
    settings: Mapping[str, Any], image: tuple[int, int, int], classes: int, weights: Path | None = None
) -> nn.Module:
    """The network of a run, untrained or pretrained.

    Parameters
    ----------
    settings : mapping
        What :func:`benchmarks.paper.experiments.settings` says of the run.
    image : tuple of int
        Channels, height and width.
    classes : int
        How many.
    weights : Path, optional
        A file, for a large network.
    """
    noise, network = settings["method"] != "none", settings["network"]
    if network == "mlp":
        inputs = image[0] * image[1] * image[2]
        return mlp(inputs, classes, layers=settings["layers"], width=settings["width"], noise=noise)
    if network == "lenet5":
        return lenet5(image[0], classes, noise=noise, share=settings["share"])
    model = large(network, classes, settings["weights"], weights)
    if not noise:
        return model
    example, where = torch.zeros(2, *image), _WHERE[network]
    return insert_noise(model, example, where=where, must_fold=False, share=settings["share"])
