"""LeNet-5 of any widths, and how a pruned one is loaded where nothing of BMRS is installed."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from benchmarks.demo.data import NUM_CLASSES

FULL_WIDTHS = (6, 16, 120, 84)
_POOLED_SIZE = 5 * 5


class LeNet5(nn.Module):
    """LeNet-5 for 28×28 images (paper, App. C.2): two convolutions, each pooled, and three linear layers.

    Parameters
    ----------
    widths : tuple of four int
        Filters of both convolutions, neurons of both hidden linear layers.
    """

    def __init__(self, widths: tuple[int, ...] = FULL_WIDTHS) -> None:
        super().__init__()
        conv1, conv2, fc1, fc2 = widths
        self.conv1 = nn.Conv2d(1, conv1, 5, padding=2)
        self.conv2 = nn.Conv2d(conv1, conv2, 5)
        self.fc1 = nn.Linear(conv2 * _POOLED_SIZE, fc1)
        self.fc2 = nn.Linear(fc1, fc2)
        self.fc3 = nn.Linear(fc2, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 1, 28, 28) to logits (N, 10)."""
        h = torch.max_pool2d(torch.relu(self.conv1(images)), 2)
        h = torch.max_pool2d(torch.relu(self.conv2(h)), 2)
        h = torch.relu(self.fc1(torch.flatten(h, 1)))
        h = torch.relu(self.fc2(h))
        logits: Tensor = self.fc3(h)
        return logits

    def widths(self) -> tuple[int, int, int, int]:
        """The four widths as they are now."""
        return (
            self.conv1.out_channels,
            self.conv2.out_channels,
            self.fc1.out_features,
            self.fc2.out_features,
        )


def example_images() -> Tensor:
    """Two blank images, for what only has to see how the network is made."""
    return torch.zeros(2, 1, 28, 28)


def lenet_parameters(widths: tuple[int, ...]) -> int:
    """Number of weights and biases of a LeNet-5 of these widths, without building it."""
    conv1, conv2, fc1, fc2 = widths
    convolutions = conv1 * 26 + conv2 * (25 * conv1 + 1)
    return convolutions + fc1 * (conv2 * _POOLED_SIZE + 1) + fc2 * (fc1 + 1) + NUM_CLASSES * (fc2 + 1)


def load_network(path: Path) -> LeNet5:
    """Load what :func:`bmrs_torch.save_pruned` saved, by torch and safetensors alone, as it documents."""
    model = LeNet5()
    with safe_open(path, "pt") as file:
        layout = json.loads(file.metadata()["bmrs"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    for name, sizes in layout["sizes"].items():
        own = vars(model.get_submodule(name))
        own.update({k: tuple(v) if isinstance(v, list) else v for k, v in sizes.items() if k in own})
    for name, parameter in model.named_parameters():
        parameter.data = tensors[name]
    return model.eval()
