"""State-space models: a channel meets only itself in the convolution and the recurrence, so it can go."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrs_torch import compact, fold, insert_noise, noise_layers
from bmrs_torch.surgery.verification import relative_difference
from tests.bindings.gates import close, scatter

INPUTS, CHANNELS, STATES, RANK, TAPS = 6, 10, 3, 2, 3


class SelectiveScan(nn.Module):
    """As in Mamba (Gu and Dao, 2023, Algorithm 2), with weights of modules that aren't called."""

    def __init__(self, *, remembers: bool) -> None:
        super().__init__()
        self.remembers = remembers
        self.enter, self.leave = nn.Linear(INPUTS, 2 * CHANNELS), nn.Linear(CHANNELS, INPUTS)
        self.conv = nn.Conv1d(CHANNELS, CHANNELS, TAPS, groups=CHANNELS, padding=TAPS - 1)
        self.select, self.step = nn.Linear(CHANNELS, RANK + 2 * STATES), nn.Linear(RANK, CHANNELS)
        self.log_decay, self.skip = (
            nn.Parameter(torch.rand(CHANNELS, STATES)),
            nn.Parameter(torch.rand(CHANNELS)),
        )

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        u, gate = self.enter(x).transpose(1, 2).chunk(2, 1)
        if self.remembers:
            u = torch.zeros_like(u).copy_(u)
        weight = self.conv.weight.squeeze(1)
        u = F.conv1d(u, weight.unsqueeze(1), self.conv.bias, padding=TAPS - 1, groups=u.shape[1])
        u = F.silu(u[..., :length])
        rank, before, after = self.select(u.transpose(1, 2)).split([RANK, STATES, STATES], -1)
        step = F.softplus(self.step.weight @ rank.transpose(1, 2) + self.step.bias[:, None])
        decay = torch.exp(-self.log_decay.exp()[None, :, None] * step[..., None])
        given = step[..., None] * before[:, None] * u[..., None]
        state, outputs = torch.zeros(len(x), u.shape[1], STATES, dtype=x.dtype), []
        for t in range(length):
            state = decay[:, :, t] * state + given[:, :, t]
            outputs.append((state @ after[:, t, :, None])[..., 0])
        y = (torch.stack(outputs, -1) + u * self.skip[:, None]) * F.silu(gate)
        answer: Tensor = self.leave(y.transpose(1, 2))
        return x + answer


def sequences(batch: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randn(batch, length, INPUTS, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("remembers", [False, True])
def test_channels_of_a_selective_scan_go(remembers: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(SelectiveScan(remembers=remembers), nn.Linear(INPUTS, 3)).double().eval()
    insert_noise(model, sequences(2, 4))
    assert len(noise_layers(model)) == 1
    smaller: Any = compact(close(scatter(model), 0.6), sequences(2, 4))
    (scan, _), left = smaller, CHANNELS - 6
    assert (scan.enter.out_features, scan.leave.in_features, scan.step.out_features) == (2 * left, left, left)
    assert (scan.conv.in_channels, scan.conv.out_channels, scan.conv.groups) == (left, left, left)
    assert (scan.log_decay.shape, scan.skip.shape) == ((left, STATES), (left,))
    folded = fold(smaller, sequences(2, 4))
    for batch, length in ((2, 4), (3, 7)):
        assert relative_difference(model, smaller, sequences(batch, length)) < 1e-12
        assert relative_difference(model, folded, sequences(batch, length)) < 1e-12
