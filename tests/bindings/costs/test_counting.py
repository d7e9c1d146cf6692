"""Counts hold what fused operations do."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bmrs_torch import MultiplicativeNoise
from bmrs_torch.costs.counting import count_bytes, count_macs, count_parameters, count_plain_parameters


def test_products_in_torchs_fused_encoder_layer_are_counted() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    positions, width = 5, 8
    projections, attention, hidden = 4 * width * width, 2 * positions * width, 2 * width * 16
    assert count_macs(layer, torch.ones(1, positions, width))[""] == positions * (
        projections + attention + hidden
    )


class Scaled(nn.Module):
    """A module that is given a view of a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.layer = nn.Parameter(torch.ones(4, 3)), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.layer(self.table[:2]) * x
        return answer


def test_modules_that_are_given_parameters_are_counted_and_go_on_learning() -> None:
    model = Scaled()
    assert count_macs(model, torch.ones(1))[""] == 2 * 3 * 2
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_noise_costs_nothing_and_what_is_shared_counts_once() -> None:
    first = nn.Linear(4, 4, bias=False)
    model = nn.Sequential(first, MultiplicativeNoise(4), first, nn.BatchNorm1d(4))
    assert count_plain_parameters(model) == 16 + 8 < count_parameters(model)
    numbers_of_norm = 4 * 4 * 4 + 8  # weight, bias, mean, variance; an int64
    assert count_bytes(model) == 16 * 4 + numbers_of_norm
