"""Small networks for the tests, with structures that the criteria prune or keep by a wide margin."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bmrs_torch import insert_noise, noise_layers


class LeNet5(nn.Module):
    """LeNet-5 for 28×28 images, written with functions between its layers as people do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = torch.max_pool2d(torch.relu(self.conv2(x)), 2)
        x = torch.relu(self.fc1(x.view(x.size(0), -1)))
        answer: Tensor = self.fc3(torch.relu(self.fc2(x)))
        return answer


def mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 20), nn.ReLU(), nn.Linear(20, 15), nn.Tanh(), nn.Linear(15, 10)
    )


def conv_with_norm() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Conv2d(8, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 10),
    )


NETWORKS = {"mlp": mlp, "lenet5": LeNet5, "conv_with_norm": conv_with_norm}


def noisy(name: str, seed: int = 0) -> nn.Module:
    """A network with noise whose every parameter is random and whose BatchNorm statistics are too."""
    torch.manual_seed(seed)
    model = insert_noise(NETWORKS[name](), images(2))
    with torch.no_grad():
        model.train()(images(64))
        for layer in noise_layers(model).values():
            layer.mu.uniform_(-2.0, 0.0)
            layer.log_sigma.uniform_(-4.0, -2.0)
            layer.mask.copy_(torch.rand(layer.num_structures) < 0.6)
            layer.mask[0] = 1
    return model


def images(number: int, seed: int = 1) -> Tensor:
    return torch.randn(number, 1, 28, 28, generator=torch.Generator().manual_seed(seed))


def hopeless(model: nn.Module, layer_name: str, structures: list[int]) -> None:
    """Make the noise of some structures wide and close to 0: every criterion but L2 prunes them."""
    with torch.no_grad():
        layer = noise_layers(model)[layer_name]
        layer.mu[structures] = -18.0
        layer.log_sigma[structures] = 1.0
