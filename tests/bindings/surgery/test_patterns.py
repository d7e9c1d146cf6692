"""What networks are made of: each pattern is shrunk exactly, or kept with the reason that applies."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bmrs_torch import MultiplicativeNoise, compact, noise_layers, plan_compaction
from bmrs_torch.surgery.verification import relative_difference
from tests.bindings.surgery.patterns import REMOVABLE, RETAINED, even_halves

DEAD = [0, 2]

Pattern = Callable[[], nn.Module]


def masked(pattern: Pattern, dead: list[int] = DEAD) -> nn.Module:
    """In float64, with offsets in every bias and norm, which are 0 at first."""
    torch.manual_seed(0)
    model = pattern().double().eval()
    layers = noise_layers(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.rand_like(parameter))
        for layer in layers.values():
            layer.mu.fill_(-0.3)
            layer.mask[dead] = 0
    return model


def images(seed: int) -> Tensor:
    return torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_same_answers(model: nn.Module, smaller: nn.Module) -> None:
    """On inputs that the surgery has not seen; in float64 only the order of sums differs."""
    assert relative_difference(model, smaller, images(9)) < 1e-12


@pytest.mark.parametrize("pattern", REMOVABLE, ids=lambda p: p.__name__)
def test_what_can_go_goes(pattern: Pattern) -> None:
    model = masked(pattern)
    smaller = compact(model, images(0))
    for before, after in zip(noise_layers(model).values(), noise_layers(smaller).values(), strict=True):
        assert after.num_structures == before.num_structures - len(DEAD)
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in model.parameters())
    assert_same_answers(model, smaller)


@pytest.mark.parametrize("pattern", RETAINED, ids=lambda p: p.__name__)
def test_what_has_to_stay_stays_and_the_reason_is_given(pattern: Pattern) -> None:
    model = masked(pattern)
    with pytest.warns(UserWarning, match="not removable") as caught:
        smaller = compact(model, images(0))
    assert re.search(RETAINED[pattern], str(caught[0].message))
    sizes = [[layer.num_structures for layer in noise_layers(m).values()] for m in (model, smaller)]
    assert sizes[0] == sizes[1]
    assert_same_answers(model, smaller)


@pytest.mark.parametrize(("dead", "removed"), [([0, 3], 2), ([0, 1, 4], 2), ([0, 1], 0)])
def test_halves_that_are_split_evenly_lose_equally_many(dead: list[int], removed: int) -> None:
    model = masked(even_halves, dead)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        smaller = compact(model, images(0))
    assert noise_layers(smaller)["gate"].num_structures == 6 - removed
    assert_same_answers(model, smaller)


@pytest.mark.parametrize(("dead", "removed"), [([0, 2], 2), ([0, 1, 2], 2), ([0, 1], 0), ([0, 1, 2, 3], 2)])
def test_a_grouped_convolution_keeps_as_many_in_every_group(dead: list[int], removed: int) -> None:
    def grouped() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 4, 3),
            MultiplicativeNoise(4),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3, groups=2),
            nn.Conv2d(6, 2, 3),
        )

    model = masked(grouped, dead)
    plan = plan_compaction(model, images(0))
    assert plan.removed == removed
    reasons = {reason for layer in plan.layers for _, reason in layer.retained}
    assert all("in every group" in reason or "at least one" in reason for reason in reasons)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        smaller = compact(model, images(0))
    assert_same_answers(model, smaller)
    convolution: Any = smaller.get_submodule("3")
    assert (convolution.in_channels, convolution.groups) == (4 - removed, 2)
