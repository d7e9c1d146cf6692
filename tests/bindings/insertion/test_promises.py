"""What insertion promises: open gates change nothing, and every gate can go, alone or not, and folds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.parametrize import register_parametrization

from bmrs_torch import MultiplicativeNoise, compact, fold, insert_noise, noise_layers, plan_compaction
from tests.bindings.gates import close, open_wide, scatter

Build = Callable[[], nn.Module]


def mlp(activation: Build) -> Build:
    return lambda: nn.Sequential(
        nn.Linear(4, 8), activation(), nn.Linear(8, 6), activation(), nn.Linear(6, 3)
    )


def filters(activation: Build, norm: Build) -> Build:
    return lambda: nn.Sequential(nn.Conv2d(3, 8, 3), norm(), activation(), nn.Conv2d(8, 2, 1))


def normalized_by(function: Callable[[Any], Any], layer: Build, reader: Build) -> Build:
    return lambda: nn.Sequential(function(layer()), nn.ELU(), reader())


class Loop(nn.Module):
    """Layers in a list, told apart by their type."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)])

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if isinstance(layer, nn.Linear) and i < 2:
                x = x.relu()
        return x


class TiedHeads(nn.Module):
    """Two heads of the same weights in layers of their own, on different inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 6)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)) for _ in range(2)
        )
        for key in ("0", "2"):
            ours, theirs = (head.get_submodule(key) for head in self.heads)
            theirs.weight, theirs.bias = ours.weight, ours.bias

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder(x)
        return self.heads[0](h), self.heads[1](torch.tanh(h))


class Residual(nn.Module):
    """Two blocks that add to a stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(6, 5, 1), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 6, 1))
            for _ in range(2)
        )
        self.last = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        for block in self.blocks:
            x = (x + block(x)).relu()
        answer: Tensor = self.last(x.mean((2, 3)))
        return answer


class Transformer(nn.Module):
    """Attention and gated neurons on a stream."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.gate, self.up, self.down = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 8)
        self.last = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).reshape(*x.shape[:2], 3, self.heads, 2).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        h = self.norm2(x)
        answer: Tensor = self.last(x + self.down(F.silu(self.gate(h)) * self.up(h)))
        return answer


class SqueezeExcitation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        self.squeeze, self.excite = nn.Linear(8, 4), nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        weight = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
        answer: Tensor = self.last(x * weight[:, :, None, None])
        return answer


def depthwise() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.SiLU()),
        *(nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.SiLU()),
        nn.Conv2d(8, 2, 1),
    )


TOKENS, SIGNALS, IMAGES, VECTORS = (2, 5, 8), (3, 4, 9), (2, 3, 6, 6), (3, 4)

KEPT: dict[str, tuple[Build, tuple[int, ...]]] = {
    **{f"mlp {kind.__name__}": (mlp(kind), VECTORS) for kind in (nn.ReLU, nn.Tanh, nn.GELU, nn.Sigmoid)},
    "mlp Softplus": (mlp(nn.Softplus), VECTORS),
    "filters": (filters(nn.ReLU, nn.Identity), IMAGES),
    "filters, sigmoid": (filters(nn.Sigmoid, nn.Identity), IMAGES),
    "batch norm": (filters(nn.ReLU, lambda: nn.BatchNorm2d(8)), IMAGES),
    "batch norm without weights": (filters(nn.ReLU, lambda: nn.BatchNorm2d(8, affine=False)), IMAGES),
    "a loop that asks for types": (Loop, VECTORS),
    "tied heads": (TiedHeads, VECTORS),
    "residual": (Residual, IMAGES),
    "transformer": (Transformer, TOKENS),
    "squeeze and excitation": (SqueezeExcitation, IMAGES),
    "depthwise": (depthwise, IMAGES),
    "weight norm, linear": (
        normalized_by(parametrizations.weight_norm, lambda: nn.Linear(4, 6), lambda: nn.Linear(6, 2)),
        VECTORS,
    ),
    "weight norm, 1d": (
        normalized_by(parametrizations.weight_norm, lambda: nn.Conv1d(4, 6, 3), lambda: nn.Conv1d(6, 2, 1)),
        SIGNALS,
    ),
    "weight norm, 2d": (
        normalized_by(parametrizations.weight_norm, lambda: nn.Conv2d(3, 6, 3), lambda: nn.Conv2d(6, 2, 1)),
        IMAGES,
    ),
}


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def doubled(layer: nn.Module) -> nn.Module:
    register_parametrization(layer, "weight", Doubled())
    return layer


class Siamese(nn.Module):
    """A layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.last = nn.Linear(4, 6), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.last(torch.cat([self.shared(x).relu(), self.shared(-x).relu()], -1))
        return answer


class TiedAutoencoder(nn.Module):
    """The decoder's weights are the encoder's, transposed by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.outer, self.inner = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.inner(self.outer(x).relu())
        return F.linear(F.linear(z, self.inner.weight.t()).relu(), self.outer.weight.t())


def parametrized(function: Callable[[Any], Any]) -> Build:
    return normalized_by(function, lambda: nn.Linear(4, 6), lambda: nn.Linear(6, 2))


REFUSED_OR_KEPT: dict[str, tuple[Build, tuple[int, ...]]] = {
    "spectral norm": (parametrized(parametrizations.spectral_norm), VECTORS),
    "orthogonal": (parametrized(parametrizations.orthogonal), VECTORS),
    "a parametrization of one's own": (parametrized(doubled), VECTORS),
    "a layer called twice": (Siamese, VECTORS),
    "a tied autoencoder": (TiedAutoencoder, VECTORS),
}


def made(build: Build, shape: tuple[int, ...]) -> tuple[nn.Module, Tensor]:
    """In evaluation and float64, with statistics and offsets as training leaves them."""
    torch.manual_seed(0)
    model = build().double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)) and module.bias is not None:
            nn.init.normal_(module.bias)
    return model, torch.randn(shape, dtype=torch.float64)


def assert_same(found: Any, expected: Any) -> None:
    """Float64 sums of some tens of terms, in another order."""
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def inserted(build: Build, shape: tuple[int, ...]) -> tuple[nn.Module, Tensor]:
    model, x = made(build, shape)
    insert_noise(model, x)
    return model, x


kept = pytest.mark.parametrize(("build", "shape"), KEPT.values(), ids=KEPT)


@kept
def test_open_gates_answer_as_before(build: Build, shape: tuple[int, ...]) -> None:
    model, x = made(build, shape)
    before = model(x)
    insert_noise(model, x)
    # E[θ] is 1 within 1e-5, at a few gates one after another.
    torch.testing.assert_close(open_wide(model)(x), before, rtol=1e-3, atol=1e-3)


@kept
def test_every_gate_folds(build: Build, shape: tuple[int, ...]) -> None:
    plain, x = made(build, shape)
    model = close(scatter(insert_noise(copy.deepcopy(plain), x)))
    for folded in (fold(model, x), fold(model)):
        assert_same(folded(x), model(x))
        assert not any(isinstance(module, MultiplicativeNoise) for module in folded.modules())
        # A parametrization that can't have weights of 0, as weight_norm, is gone with the noise.
        assert kinds(folded) == kinds(plain)


def kinds(model: nn.Module) -> list[type[nn.Module]]:
    """The classes of a model's modules, parametrized or not."""
    return [
        type(module).__bases__[0] if parametrize.is_parametrized(module) else type(module)
        for name, module in model.named_modules()
        if "parametrizations" not in name
    ]


@kept
def test_every_gate_compacts_and_what_is_left_folds(build: Build, shape: tuple[int, ...]) -> None:
    model, x = inserted(build, shape)
    close(scatter(model))
    smaller = compact(model, x)
    sizes = [layer.num_structures for layer in noise_layers(smaller).values()]
    assert sizes == [int(layer.kept().sum()) for layer in noise_layers(model).values()]
    assert_same(smaller(x), model(x))
    assert_same(fold(smaller, x)(x), model(x))
    assert_same(fold(smaller)(x), model(x))


@kept
def test_each_structure_can_go_by_itself(build: Build, shape: tuple[int, ...]) -> None:
    model, x = inserted(build, shape)
    for layer in noise_layers(model).values():
        for structure in (0, layer.num_structures - 1):
            layer.mask[structure] = 0
            plan = plan_compaction(model, x)
            assert (plan.removed, plan.retained) == (1, 0), plan
            layer.mask[structure] = 1


@pytest.mark.parametrize(("build", "shape"), REFUSED_OR_KEPT.values(), ids=REFUSED_OR_KEPT)
def test_what_insertion_can_not_promise_it_refuses_and_touches_nothing(
    build: Build, shape: tuple[int, ...]
) -> None:
    model, x = made(build, shape)
    keys, before = list(model.state_dict()), model(x)
    try:
        insert_noise(model, x)
    except ValueError:
        assert list(model.state_dict()) == keys
        assert torch.equal(model(x), before)
        return
    torch.testing.assert_close(open_wide(model)(x), before, rtol=1e-3, atol=1e-3)  # as above
    close(scatter(model))
    assert_same(fold(compact(model, x), x)(x), model(x))
    assert_same(fold(model, x)(x), model(x))


def test_noise_that_is_there_already_may_have_any_strength() -> None:
    model = nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), MultiplicativeNoise(6), nn.Linear(6, 2)
    )
    insert_noise(scatter(model), torch.ones(2, 4), where=["0"])
    assert list(noise_layers(model)) == ["0.noise", "3"]
