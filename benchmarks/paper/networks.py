"""The networks of App. C as the released code builds them, with noise on their hidden structures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from bmrs_kernels.contract import Share
from bmrs_torch import MultiplicativeNoise

SMALL = ("mlp", "lenet5")


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
    """Stack two convolutions of 6 and 16 filters per channel and three linear layers, for 32×32 images."""
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


def build(settings: Mapping[str, Any], image: tuple[int, int, int], classes: int) -> nn.Module:
    """The network of a run, untrained.

    Parameters
    ----------
    settings : mapping
        What :func:`benchmarks.paper.experiments.settings` says of the run.
    image : tuple of int
        Channels, height and width.
    classes : int
        How many.
    """
    noise = settings["method"] != "none"
    if settings["network"] == "mlp":
        inputs = image[0] * image[1] * image[2]
        return mlp(inputs, classes, layers=settings["layers"], width=settings["width"], noise=noise)
    if settings["network"] == "lenet5":
        return lenet5(image[0], classes, noise=noise, share=settings["share"])
    raise ValueError(f"network must be one of {', '.join(SMALL)}, got {settings['network']!r}")
