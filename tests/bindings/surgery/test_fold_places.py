"""Where noise folds: into what comes before it, or into whatever reads it, and nowhere else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrs_torch import MultiplicativeNoise, NotFoldableError, SurgeryError, compact, fold, insert_noise
from tests.bindings.gates import close, scatter

Build = Callable[[], nn.Module]


def ready(model: nn.Module) -> nn.Module:
    """In float64, with other noise on every structure and some closed, weights and statistics at random."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)) and module.bias is not None:
            nn.init.normal_(module.bias)
    return close(scatter(model.double().eval()))


def example(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_folds(model: nn.Module, x: Tensor) -> nn.Module:
    """The folded model has no noise, answers as the model does, also on what it has not seen."""
    before = copy.deepcopy(model.state_dict())
    folded = fold(model, x)
    assert not any(type(module).__module__.startswith("bmrs") for module in folded.modules())
    unseen = example(*x.shape, seed=9)
    # Float64 sums of some tens of terms: all that is between them is where a factor is multiplied in.
    torch.testing.assert_close(folded(unseen), model(unseen), rtol=1e-9, atol=1e-9)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    return folded


def noise(number: int = 6, axis: int = 1) -> MultiplicativeNoise:
    return MultiplicativeNoise(number, axis=axis)


ACTIVATIONS: list[Build] = [
    nn.Tanh,
    nn.GELU,
    nn.Sigmoid,
    nn.SiLU,
    nn.Softplus,
    nn.ELU,
    nn.Hardswish,
    nn.Mish,
    nn.ReLU,
    lambda: nn.Softmax(1),
    nn.Identity,
]


class Layers:
    """A layer, what may read its outputs (tokens, signals, images), and the shape of an input."""

    def __init__(self, layer: Build, reader: Build, *shape: int) -> None:
        self.layer, self.reader, self.shape = layer, reader, shape


KINDS = {
    "linear": Layers(lambda: nn.Linear(4, 6), lambda: nn.Linear(6, 3), 3, 4),
    "conv1d": Layers(lambda: nn.Conv1d(4, 6, 3), lambda: nn.Conv1d(6, 3, 2), 3, 4, 8),
    "conv2d": Layers(lambda: nn.Conv2d(4, 6, 3), lambda: nn.Conv2d(6, 3, 2), 3, 4, 6, 6),
    "padded": Layers(lambda: nn.Conv2d(4, 6, 3, 2, 1), lambda: nn.Conv2d(6, 3, 3, padding=1), 3, 4, 6, 6),
    "groups": Layers(lambda: nn.Conv2d(4, 6, 1, groups=2), lambda: nn.Conv2d(6, 4, 2, groups=2), 3, 4, 5, 5),
    "transposed": Layers(
        lambda: nn.ConvTranspose2d(4, 6, 2), lambda: nn.ConvTranspose2d(6, 3, 2), 3, 4, 5, 5
    ),
    "transposed groups": Layers(
        lambda: nn.ConvTranspose2d(4, 6, 2, groups=2),
        lambda: nn.ConvTranspose2d(6, 4, 2, groups=2),
        *(3, 4, 5, 5),
    ),
    "flattened": Layers(
        lambda: nn.Conv2d(4, 6, 3), lambda: nn.Sequential(nn.Flatten(), nn.Linear(24, 3)), 3, 4, 4, 4
    ),
    "pooled": Layers(
        lambda: nn.Conv2d(4, 6, 3),
        lambda: nn.Sequential(nn.AvgPool2d(2), nn.Dropout(), nn.Conv2d(6, 3, 1)),
        *(3, 4, 6, 6),
    ),
}

every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@every_kind
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_after_any_activation_it_folds_into_what_reads_it(kind: Layers, activation: Build) -> None:
    assert_folds(
        ready(nn.Sequential(kind.layer(), activation(), noise(), kind.reader())), example(*kind.shape)
    )


@every_kind
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_before_any_activation_it_folds_into_what_made_it(kind: Layers, activation: Build) -> None:
    assert_folds(
        ready(nn.Sequential(kind.layer(), noise(), activation(), kind.reader())), example(*kind.shape)
    )


@pytest.mark.parametrize("activation", ACTIVATIONS[:4])
def test_what_is_closed_behind_an_activation_goes_and_the_rest_folds(activation: Build) -> None:
    model = ready(
        nn.Sequential(
            *(nn.Linear(8, 6), activation(), noise()),
            *(nn.Linear(6, 6), activation(), noise()),
            nn.Linear(6, 3),
        )
    )
    x = example(4, 8)
    folded = fold(compact(model, x), x)
    assert [m.out_features for m in folded.modules() if isinstance(m, nn.Linear)] == [4, 4, 3]
    torch.testing.assert_close(folded(x), model(x), rtol=1e-9, atol=1e-9)  # float64 sums


class Attribute(nn.Module):
    """Noise as an attribute, between functions."""

    def __init__(self, function: Callable[[Tensor], Tensor], axis: int) -> None:
        super().__init__()
        self.function = function
        self.first, self.gate, self.last = nn.Linear(4, 6), noise(axis=axis), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.last(self.gate(self.function(self.first(x))))
        return answer


@pytest.mark.parametrize("function", [torch.tanh, F.silu, F.gelu, torch.sigmoid, F.softplus, torch.sin])
@pytest.mark.parametrize(("axis", "shape"), [(1, (3, 4)), (-1, (3, 4)), (-1, (3, 5, 4)), (2, (3, 5, 4))])
def test_between_functions_it_folds_too(function: Any, axis: int, shape: tuple[int, ...]) -> None:
    folded = assert_folds(ready(Attribute(function, axis)), example(*shape))
    assert list(dict(folded.named_parameters())) == [
        "first.weight",
        "first.bias",
        "last.weight",
        "last.bias",
    ]


class Functional(nn.Module):
    """Layers by name, and a forward method of them."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def images(forward: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> tuple[nn.Module, Tensor]:
    return Functional(forward, first=nn.Conv2d(3, 6, 3), gate=noise(), **layers), example(2, 3, 6, 6)


def tokens(forward: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> tuple[nn.Module, Tensor]:
    return Functional(forward, first=nn.Linear(4, 6), gate=noise(axis=-1), **layers), example(2, 5, 4)


def two_readers(m: Any, x: Tensor) -> Tensor:
    h = m.gate(m.first(x).tanh())
    answer: Tensor = m.one(h) + m.other(h)
    return answer


def linear_and_convolution(m: Any, x: Tensor) -> Tensor:
    h = m.gate(m.first(x).tanh())
    answer: Tensor = m.one(h.mean((2, 3))) + m.other(h).mean((2, 3))
    return answer


def gated(m: Any, x: Tensor) -> Tensor:
    answer: Tensor = m.last(m.gate(m.first(x).sigmoid() * m.second(x)))
    return answer


def concatenated(m: Any, x: Tensor) -> Tensor:
    answer: Tensor = m.last(torch.cat([m.gate(m.first(x).tanh()), x], -1))
    return answer


def stream_before(m: Any, x: Tensor) -> Tensor:
    h = m.gate(m.first(x))
    answer: Tensor = m.last(h + m.inner(h).tanh())
    return answer


def channels_last(m: Any, x: Tensor) -> Tensor:
    answer: Tensor = m.last(m.gate(m.first(x).tanh()).permute(0, 2, 3, 1).flatten(1, 2)).mean(1)
    return answer


FOLDABLE: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "two linear readers": lambda: tokens(two_readers, one=nn.Linear(6, 3), other=nn.Linear(6, 3)),
    "two convolutions": lambda: images(two_readers, one=nn.Conv2d(6, 3, 3), other=nn.Conv2d(6, 3, 3)),
    "linear and convolution": lambda: images(
        linear_and_convolution, one=nn.Linear(6, 3), other=nn.Conv2d(6, 3, 1)
    ),
    "product of two": lambda: tokens(gated, second=nn.Linear(4, 6), last=nn.Linear(6, 3)),
    "concatenated with the input": lambda: tokens(concatenated, last=nn.Linear(10, 3)),
    "linear, then read by anything": lambda: tokens(
        stream_before, inner=nn.Linear(6, 6), last=nn.Linear(6, 3)
    ),
    "another order of the axes": lambda: images(channels_last, last=nn.Linear(6, 3)),
}


@pytest.mark.parametrize("build", FOLDABLE.values(), ids=FOLDABLE)
def test_every_reader_takes_its_share(build: Callable[[], tuple[nn.Module, Tensor]]) -> None:
    model, x = build()
    assert_folds(ready(model), x)


class NormBefore(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.first, self.norm, self.gate, self.last = nn.Linear(4, 6), norm, noise(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.last(self.gate(self.norm(self.first(x))))
        return answer


NORMS: dict[str, Build] = {
    "layer norm": lambda: nn.LayerNorm(6),
    "layer norm without weights": lambda: nn.LayerNorm(6, elementwise_affine=False),
    "layer norm without bias": lambda: nn.LayerNorm(6, bias=False),
    "batch norm": lambda: nn.BatchNorm1d(6),
    "batch norm without weights": lambda: nn.BatchNorm1d(6, affine=False),
    "group norm": lambda: nn.GroupNorm(2, 6),
}


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_after_a_norm_it_folds(norm: Build) -> None:
    assert_folds(ready(NormBefore(norm())), example(3, 4))


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_between_a_layer_and_a_norm_it_folds_into_the_layer(norm: Build) -> None:
    assert_folds(ready(nn.Sequential(nn.Linear(4, 6), noise(), norm(), nn.Linear(6, 3))), example(3, 4))


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_after_a_batch_norm_without_weights_it_folds_into_what_reads_it(activation: Build) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, affine=False), activation(), noise(), nn.Conv2d(6, 2, 1)
    )
    assert_folds(ready(model), example(2, 3, 6, 6))


class Attention(nn.Module):
    """Noise on the heads, before or after they are mixed."""

    def __init__(self, mixed: bool) -> None:
        super().__init__()
        self.mixed, self.heads = mixed, 4
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 3)
        self.gate = noise(4, axis=-2 if mixed else 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, 2).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v if self.mixed else self.gate(v)).transpose(1, 2)
        answer: Tensor = self.out((self.gate(h) if self.mixed else h).flatten(2))
        return answer


@pytest.mark.parametrize("mixed", [True, False])
def test_noise_on_attention_heads_folds(mixed: bool) -> None:
    assert_folds(ready(Attention(mixed)), example(2, 5, 8))


def residual(m: Any, x: Tensor) -> Tensor:
    h = m.gate(m.first(x).tanh())
    answer: Tensor = m.last(h + m.inner(h).tanh())
    return answer


def read_by_a_function(m: Any, x: Tensor) -> Tensor:
    h = m.gate(m.first(x).tanh())
    answer: Tensor = m.last(h) + h.sin().sum(-1, keepdim=True)
    return answer


def behind_another_activation(m: Any, x: Tensor) -> Tensor:
    answer: Tensor = m.last(m.gate(m.first(x).tanh()).sigmoid())
    return answer


def to_the_output(m: Any, x: Tensor) -> Tensor:
    answer: Tensor = m.gate(m.last(m.first(x)).tanh())
    return answer


def squared(m: Any, x: Tensor) -> Tensor:
    h = m.gate(m.first(x).tanh())
    answer: Tensor = m.last(h * h.sigmoid())
    return answer


NOT_FOLDABLE: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "a residual stream": lambda: tokens(residual, inner=nn.Linear(6, 6), last=nn.Linear(6, 3)),
    "read by a function": lambda: tokens(read_by_a_function, last=nn.Linear(6, 3)),
    "an activation on both sides": lambda: tokens(behind_another_activation, last=nn.Linear(6, 3)),
    "the output": lambda: tokens(to_the_output, last=nn.Linear(6, 6)),
    "a product with itself": lambda: tokens(squared, last=nn.Linear(6, 3)),
}


@pytest.mark.parametrize("build", NOT_FOLDABLE.values(), ids=NOT_FOLDABLE)
def test_a_reader_that_is_not_linear_is_refused_and_the_noise_layer_named(build: Any) -> None:
    model, x = build()
    ready(model)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(NotFoldableError, match="'gate'"):
        fold(model, x)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm(6), nn.GroupNorm(2, 6), nn.Softmax(-1)], ids=["layer", "group", "softmax"]
)
def test_between_an_activation_and_a_norm_it_is_refused(norm: nn.Module) -> None:
    model = ready(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), noise(), norm, nn.Linear(6, 3)))
    with pytest.raises(NotFoldableError, match="noise layer '2'"):
        fold(model, example(3, 4))


class TiedReader(nn.Module):
    """What reads the noise is applied a second time, to something without it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.shared = nn.Linear(4, 6), noise(), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.shared(self.shared(self.gate(self.first(x).tanh())).tanh())
        return answer


class TiedAutoencoder(nn.Module):
    """The decoder's weights are the encoder's, transposed by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.outer, self.inner = nn.Linear(8, 6), nn.Linear(6, 4)
        self.gate = noise()

    def forward(self, x: Tensor) -> Tensor:
        z = self.inner(self.gate(self.outer(x)).relu())
        return F.linear(F.linear(z, self.inner.weight.t()).relu(), self.outer.weight.t())


class WeightByFunction(nn.Module):
    """A layer's weights, used outside of it too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Linear(4, 6), noise(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.last(self.gate(self.first(x)).tanh()) + self.first.weight.sum()
        return answer


def tied_weights() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), noise(), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    model[3].weight = model[0].weight
    return model


def twice_after_layers() -> nn.Module:
    gate = noise()
    return nn.Sequential(nn.Linear(6, 6), gate, nn.Tanh(), nn.Linear(6, 6), gate, nn.Tanh(), nn.Linear(6, 3))


DELICATE: dict[str, tuple[Build, tuple[int, ...]]] = {
    "a reader applied twice": (TiedReader, (3, 4)),
    "a tied autoencoder": (TiedAutoencoder, (3, 8)),
    "weights read elsewhere": (WeightByFunction, (3, 4)),
    "two layers of the same weights": (tied_weights, (3, 6)),
    "one noise layer at two places": (twice_after_layers, (3, 6)),
}


@pytest.mark.parametrize(("build", "shape"), DELICATE.values(), ids=DELICATE)
def test_what_would_be_folded_wrongly_is_refused(build: Build, shape: tuple[int, ...]) -> None:
    """Rightly or not at all, never wrongly without a word."""
    model, x = ready(build()), example(*shape)
    try:
        folded = fold(model, x)
    except (NotFoldableError, SurgeryError):
        return
    torch.testing.assert_close(folded(x), model(x), rtol=1e-9, atol=1e-9)  # float64 sums


def test_inserted_noise_folds_without_an_example_and_is_checked_all_the_same() -> None:
    class Tied(TiedAutoencoder):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Identity()  # type: ignore[assignment]

    model, x = Tied().double().eval(), example(3, 8)
    insert_noise(model, x)
    close(scatter(model))
    try:
        folded = fold(model)
    except (NotFoldableError, SurgeryError):
        return
    torch.testing.assert_close(folded(x), model(x), rtol=1e-9, atol=1e-9)  # float64 sums


def test_noise_placed_by_hand_needs_an_example() -> None:
    model = ready(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), noise(), nn.Linear(6, 3)))
    with pytest.raises((ValueError, TypeError), match="example_inputs"):
        fold(model)
