"""Channels that go a group at a time: of GroupNorm, of grouped convolutions, of shuffled pixels."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrs_torch import compact, fold, insert_noise, noise_layers, plan_compaction, prune, scores
from bmrs_torch.surgery.verification import relative_difference
from tests.bindings.surgery.patterns import Functional, conv

EXACT = 1e-12
"""Of float64 sums in another order."""


def images(number: int, seed: int = 0) -> Tensor:
    return torch.randn(number, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def noisy(model: nn.Module, where: str = "auto") -> nn.Module:
    """With gates of any strength, and with offsets in every bias and norm, which are 0 at first."""
    model = insert_noise(model.double().eval(), images(2), where=where)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.rand_like(parameter))
        for layer in noise_layers(model).values():
            layer.mu.uniform_(-2.0, 0.0)
    return model


def shrunk(model: nn.Module, dead: Mapping[str, Sequence[int]]) -> nn.Module:
    """What is left of a model without these structures, proved on other images, and folded as well."""
    for name, structures in dead.items():
        noise_layers(model)[name].mask[list(structures)] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        smaller = compact(model, images(2))
    for number in (1, 5):
        assert relative_difference(model, smaller, images(number, seed=9)) < EXACT
        assert relative_difference(model, fold(smaller, images(2)), images(number, seed=9)) < EXACT
    return smaller


def shapes(model: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(p.shape) for name, p in model.named_parameters() if name.endswith("weight")]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("affine", [True, False])
def test_a_gate_for_each_group_of_a_group_norm_lets_the_group_go(affine: bool) -> None:
    model = noisy(nn.Sequential(conv(3, 12), nn.GroupNorm(4, 12, affine=affine), nn.ReLU(), conv(12, 2)))
    (name,) = noise_layers(model)
    assert noise_layers(model)[name].num_structures == 4
    smaller: Any = shrunk(model, {name: [0, 2]})
    assert (smaller[1].num_groups, smaller[1].num_channels) == (2, 6)
    assert smaller[0].out_channels == smaller[3].in_channels == 6


@pytest.mark.parametrize(
    "norm", [nn.InstanceNorm2d(8), nn.InstanceNorm2d(8, affine=True), nn.GroupNorm(8, 8)]
)
def test_norms_of_single_channels_let_these_go(norm: nn.Module) -> None:
    model = noisy(nn.Sequential(conv(3, 8), norm, nn.ReLU(), conv(8, 2)))
    (name,) = noise_layers(model)
    smaller = shrunk(model, {name: [1, 4, 5]})
    assert noise_layers(smaller)[name].num_structures == 5
    smaller(images(1))  # which warns of a number of features that isn't the input's


def test_a_group_norm_of_one_group_keeps_all_and_says_why() -> None:
    with pytest.raises(ValueError, match="GroupNorm with a single group normalises over all structures"):
        insert_noise(nn.Sequential(conv(3, 8), nn.GroupNorm(1, 8), nn.ReLU(), conv(8, 2)), images(2).float())


class Block(nn.Module):
    """A residual block, whose GroupNorms may divide the stream in other groups than its inside."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.first, self.second = (conv(channels, channels, padding=1) for _ in range(2))
        self.norm, self.last_norm = nn.GroupNorm(2 * groups, channels), nn.GroupNorm(groups, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last_norm(self.second(self.norm(self.first(x)).relu()))
        return (x + y).relu()


def test_groups_of_a_stream_and_within_its_blocks_go() -> None:
    net = nn.Sequential(conv(3, 16), nn.GroupNorm(4, 16), nn.ReLU(), Block(16, 4), Block(16, 2), conv(16, 2))
    model = noisy(net, where="streams")
    sizes = sorted(layer.num_structures for layer in noise_layers(model).values())
    assert sizes == [2, 4, 8]  # the stream's channels go by the coarsest of its norms
    smaller = shrunk(
        model, {name: range(layer.num_structures // 2) for name, layer in noise_layers(model).items()}
    )
    assert {size for shape in shapes(smaller) for size in shape} == {8, 3, 2}


def test_groups_are_told_where_the_norm_is_called_as_a_function() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_groups, self.weight = 4, nn.Parameter(torch.rand(8))

        def forward(self, x: Tensor) -> Tensor:
            return F.group_norm(x, self.num_groups, self.weight)

    model: nn.Module = nn.Sequential(conv(3, 8), Own(), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), conv(8, 2))
    model = noisy(model)
    assert len(noise_layers(model)) == 2
    smaller: Any = shrunk(model, {name: [0, 1] for name in noise_layers(model)})
    assert smaller[1].num_groups == 2


def test_noise_on_groups_is_judged_by_the_weights_of_the_norm_too() -> None:
    model = noisy(nn.Sequential(conv(3, 12), nn.GroupNorm(4, 12), nn.ReLU(), conv(12, 2)))
    model(images(2)).square().sum().backward()
    (name,) = noise_layers(model)
    norms = model.get_parameter("1.weight").view(4, 3).norm(dim=1)
    assert scores(model, "l2")[name].argsort().tolist() == norms.argsort().tolist()
    prune(model, "gradient", amount=0.5)
    assert noise_layers(model)[name].kept().sum() == 2


GROUPED: dict[str, Callable[[], tuple[nn.Module, int, int]]] = {
    "convolution": lambda: (nn.Conv2d(16, 8, 3, groups=4), 4, 2),
    "of volumes": lambda: (
        Functional(
            lambda m, x: m.layer(x.unsqueeze(2)).flatten(1, 2), layer=nn.Conv3d(16, 8, (1, 3, 3), groups=4)
        ),
        4,
        2,
    ),
    "transposed": lambda: (nn.ConvTranspose2d(16, 8, 3, groups=4), 4, 2),
    "transposed, depthwise": lambda: (nn.ConvTranspose2d(16, 16, 4, 2, 1, groups=16), 1, 1),
    "transposed, depthwise, of more": lambda: (nn.ConvTranspose2d(16, 32, 2, groups=16), 1, 2),
    "depthwise, of more": lambda: (nn.Conv2d(16, 32, 3, groups=16), 1, 2),
}


@pytest.mark.parametrize("kind", GROUPED)
def test_groups_go_whose_inputs_and_outputs_are_all_dead(kind: str) -> None:
    grouped, inside, outside = GROUPED[kind]()
    groups = 16 // inside
    model = noisy(
        nn.Sequential(conv(3, 16), nn.ReLU(), grouped, nn.ReLU(), nn.Conv2d(outside * groups, 2, 1))
    )
    dead = {name: [*range(n // 4), *range(n // 2, 3 * n // 4)] for name, n in sizes_of(model).items()}
    smaller = shrunk(model, dead)
    layer: Any
    (layer,) = (m for m in smaller.modules() if getattr(m, "groups", 1) > 1)
    assert layer.groups == groups // 2
    assert (layer.in_channels, layer.out_channels) == (8, outside * groups // 2)


def sizes_of(model: nn.Module) -> dict[str, int]:
    return {name: layer.num_structures for name, layer in noise_layers(model).items()}


def test_a_group_with_a_live_output_stays_and_the_others_stay_as_large() -> None:
    model = noisy(nn.Sequential(conv(3, 16), nn.ReLU(), nn.Conv2d(16, 8, 3, groups=4), nn.ReLU(), conv(8, 2)))
    noise_layers(model)["0.noise"].mask[:8] = 0
    noise_layers(model)["2.noise"].mask[:3] = 0
    (first, second) = plan_compaction(model, images(2)).layers
    assert (first.removed, second.removed) == ((0, 1, 2, 3), (0, 1))
    assert "as many in every group that it keeps" in first.retained[0][1]
    shrunk(model, {})


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_random_structures_of_grouped_convolutions_go_exactly_or_stay(share: float) -> None:
    net = nn.Sequential(
        *(conv(3, 16, 1), nn.ReLU(), conv(16, 16, groups=4), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.ConvTranspose2d(16, 24, 3, groups=8), nn.GroupNorm(12, 24), nn.ReLU(), conv(24, 4, 1)),
    )
    model = noisy(net)
    for seed in range(4):
        trial = copy.deepcopy(model)
        generator = torch.Generator().manual_seed(seed)
        shrunk(
            trial,
            {
                name: torch.nonzero(torch.rand(n, generator=generator) < share)[:-1, 0].tolist()
                for name, n in sizes_of(model).items()
            },
        )


def test_channels_before_a_pixel_shuffle_have_gates_of_their_own_and_go_by_the_block() -> None:
    model = noisy(nn.Sequential(conv(3, 16, padding=1), nn.ReLU(), nn.PixelShuffle(2), conv(4, 3)))
    assert list(sizes_of(model).values()) == [16]
    smaller: Any = shrunk(model, {"0.noise": [0, 1, 2, 3, 5, 8, 9, 10, 11, 15]})
    assert (smaller[0].out_channels, smaller[3].in_channels) == (8, 2)


def test_channels_before_a_pixel_unshuffle_go() -> None:
    model = noisy(nn.Sequential(conv(3, 6, padding=1), nn.PixelUnshuffle(2), nn.ReLU(), conv(24, 3)))
    smaller: Any = shrunk(model, {name: [1, 2] for name in noise_layers(model)})
    assert (smaller[0].out_channels, smaller[3].in_channels) == (4, 16)


def test_channels_that_a_shuffle_puts_side_by_side_go_together() -> None:
    model = noisy(nn.Sequential(conv(3, 12), nn.ReLU(), nn.ChannelShuffle(3), conv(12, 2)))
    smaller: Any = shrunk(model, {name: range(n // 2) for name, n in sizes_of(model).items()})
    assert (smaller[0].out_channels, smaller[3].in_channels) == (6, 6)


@pytest.mark.parametrize("counted", [True, False])
def test_a_depthwise_convolution_with_a_view_of_weights_loses_channels(counted: bool) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        weight = m.depthwise.weight.squeeze(1)
        groups = weight.shape[0] if counted else m.groups
        y = F.conv2d(m.first(x).relu(), weight.unsqueeze(1), m.depthwise.bias, groups=groups)
        answer: Tensor = m.last(y.relu())
        return answer

    net: Any = Functional(forward, first=conv(3, 8), depthwise=conv(8, 8, groups=8), last=conv(8, 2, 1))
    net.groups = 8
    model = noisy(net)
    smaller = shrunk(model, {name: [0, 3, 4] for name in noise_layers(model)})
    assert shapes(smaller) == [(5, 3, 3, 3), (5, 1, 3, 3), (2, 5, 1, 1)]
