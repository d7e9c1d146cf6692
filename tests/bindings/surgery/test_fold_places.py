"""Where noise folds: into what comes before it, into all that reads it, or not, and then it is named."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

from bmrs_torch import (
    MultiplicativeNoise,
    NotFoldableError,
    SurgeryError,
    compact,
    fold,
    insert_noise,
    noise_layers,
)


def noise(number: int, axis: int = 1) -> MultiplicativeNoise:
    """Noise of other than its first values, one structure of it masked."""
    layer = MultiplicativeNoise(number, axis=axis)
    with torch.no_grad():
        layer.mu.uniform_(-2.0, -0.5)
        layer.mask[1] = 0
    return layer


def tensors_of(answer: Any) -> tuple[Tensor, ...]:
    return (answer,) if isinstance(answer, Tensor) else tuple(answer)


def assert_folds(model: nn.Module, x: Tensor) -> Any:
    """Fold it and the compacted one; both must be plain and answer as it does on other inputs, too."""
    model.eval()
    before = copy.deepcopy(model.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of what inputs, groups and softmax retain
        smaller = compact(model, x)
    folded = fold(model, x)
    unseen = torch.randn(x.shape, generator=torch.Generator().manual_seed(7))
    for plain in (folded, fold(smaller, x)):
        assert not any(type(module).__module__.startswith("bmrs") for module in plain.modules())
        assert not any(key.endswith(("log_sigma", "mask")) for key in plain.state_dict())
        for inputs in (x, unseen):
            for ours, theirs in zip(tensors_of(plain(inputs)), tensors_of(model(inputs)), strict=True):
                # float32 weights rounded once more, sums in another order.
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    return folded


def assert_refused(model: nn.Module, x: Tensor, name: str) -> None:
    """Refuse to fold, naming the noise layer, and leave the model as it was."""
    before = copy.deepcopy(model.eval().state_dict())
    with pytest.raises(NotFoldableError, match=f"'{name}'"):
        fold(model, x)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "GELU": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "SiLU": nn.SiLU,
    "softplus": nn.Softplus,
    "ELU": nn.ELU,
    "hardswish": nn.Hardswish,
    "softmax": lambda: nn.Softmax(1),
    "dropout and tanh": lambda: nn.Sequential(nn.Dropout(0.5), nn.Tanh()),
    "ReLU": nn.ReLU,
    "identity": nn.Identity,
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
class TestNoiseAfterAnActivation:
    """θ·f(Wx) has f between it and W: it belongs to the next layer's weights for input i."""

    def test_of_linear_layers(self, activation: str) -> None:
        torch.manual_seed(0)
        f = ACTIVATIONS[activation]
        model = nn.Sequential(
            nn.Linear(8, 6), f(), noise(6), nn.Linear(6, 6), f(), noise(6, axis=-1), nn.Linear(6, 3)
        )
        folded = assert_folds(model, torch.randn(4, 8))
        assert [type(layer) for layer in folded][::2] == [nn.Linear, nn.Linear, nn.Linear]

    def test_of_convolutions(self, activation: str) -> None:
        torch.manual_seed(0)
        f = ACTIVATIONS[activation]
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3), f(), noise(6), nn.Conv2d(6, 4, 3, groups=2), f(), noise(4), nn.Conv2d(4, 2, 1)
        )
        assert_folds(model, torch.randn(2, 3, 7, 7))

    def test_as_an_attribute_of_a_module_of_ones_own(self, activation: str) -> None:
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.act, self.gate = nn.Linear(5, 6), ACTIVATIONS[activation](), noise(6)
                self.last = nn.Linear(6, 2)

            def forward(self, x: Tensor) -> Tensor:
                h = self.gate(self.act(self.first(x)))
                answer: Tensor = self.last(h) if h.sum() < 1e9 else h  # a branch on values
                return answer

        torch.manual_seed(0)
        folded = assert_folds(Net(), torch.randn(4, 5))
        assert {name for name, _ in folded.named_parameters()} == {
            f"{layer}.{kind}" for layer in ("first", "last") for kind in ("weight", "bias")
        }


READERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Linear": (lambda: nn.Linear(6, 2), (3, 6)),
    "Linear without bias": (lambda: nn.Linear(6, 2, bias=False), (3, 6)),
    "Conv1d": (lambda: nn.Conv1d(6, 4, 3, padding=1), (2, 6, 5)),
    "Conv2d of groups": (lambda: nn.Conv2d(6, 4, 3, groups=2), (2, 6, 5, 5)),
    "depthwise": (lambda: nn.Conv2d(6, 12, 3, groups=6), (2, 6, 5, 5)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(6, 4, 2), (2, 6, 5, 5)),
    "ConvTranspose2d of groups": (lambda: nn.ConvTranspose2d(6, 4, 2, groups=2), (2, 6, 5, 5)),
    "pooled, flattened, Linear": (
        lambda: nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(24, 2)),
        (2, 6, 5, 5),
    ),
    "mean and Linear": (
        lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)),
        (2, 6, 5, 5),
    ),
    "MaxPool and Conv2d": (lambda: nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(6, 2, 1)), (2, 6, 5, 5)),
}


@pytest.mark.parametrize("reader", READERS)
def test_noise_on_an_input_folds_into_whatever_reads_it(reader: str) -> None:
    torch.manual_seed(0)
    build, shape = READERS[reader]
    model = nn.Sequential(nn.Tanh(), noise(6), build())
    folded = assert_folds(model, torch.randn(shape))
    assert len(folded) == 2


@pytest.mark.parametrize("reader", READERS)
def test_noise_folds_into_two_readers_at_once(reader: str) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.one, self.other = noise(6), READERS[reader][0](), READERS[reader][0]()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.gate(torch.tanh(x))
            return self.one(x), self.other(x)

    torch.manual_seed(0)
    assert_folds(Twice(), torch.randn(READERS[reader][1]))


class Readers(nn.Module):
    """Noise after tanh on six channels, read by a convolution, a linear layer and whatever is asked for."""

    def __init__(self, *, also: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.first, self.gate = nn.Conv2d(3, 6, 1), noise(6)
        self.conv, self.linear = nn.Conv2d(6, 4, 3), nn.Linear(6, 2)
        self.also = also

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        h = self.gate(torch.tanh(self.first(x)))
        answers = self.conv(h), self.linear(h.mean((2, 3)))
        return answers if self.also is None else (*answers, self.also(h))


def test_a_convolution_and_a_linear_layer_read_one_noise_layer() -> None:
    torch.manual_seed(0)
    model, x = Readers(), torch.randn(2, 3, 5, 5)
    folded = assert_folds(model, x)
    assert torch.equal(folded.first.weight, model.first.weight)
    assert not torch.equal(folded.conv.weight, model.conv.weight)
    assert not torch.equal(folded.linear.weight, model.linear.weight)


@pytest.mark.parametrize(
    "also",
    [
        pytest.param(lambda h: h, id="the answer"),
        pytest.param(torch.sin, id="sine"),
        pytest.param(lambda h: h.square().sum((2, 3)), id="square"),
        pytest.param(lambda h: F.layer_norm(h, h.shape[1:]), id="norm"),
        pytest.param(lambda h: torch.softmax(h, 1), id="softmax"),
    ],
)
def test_a_reader_that_has_no_weights_to_fold_into_is_a_refusal(also: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    assert_refused(Readers(also=also), torch.randn(2, 3, 5, 5), "gate")


def test_a_residual_reader_is_a_refusal() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.gate, self.inner, self.last = (
                nn.Linear(5, 6),
                noise(6),
                nn.Linear(6, 6),
                nn.Linear(6, 2),
            )

        def forward(self, x: Tensor) -> Tensor:
            h = self.gate(torch.tanh(self.first(x)))
            answer: Tensor = self.last(torch.sigmoid(h + self.inner(h)))
            return answer

    torch.manual_seed(0)
    assert_refused(Residual(), torch.randn(3, 5), "gate")


def test_a_residual_stream_read_by_layers_with_weights_alone_folds() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.gate, self.inner, self.last = (
                nn.Linear(5, 6),
                noise(6),
                nn.Linear(6, 4),
                nn.Linear(6, 4),
            )

        def forward(self, x: Tensor) -> Tensor:
            h = self.gate(torch.tanh(self.first(x)))
            return torch.sigmoid(self.last(h) + self.inner(h))

    torch.manual_seed(0)
    assert_folds(Residual(), torch.randn(3, 5))


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm(6), nn.LayerNorm(6, elementwise_affine=False), nn.GroupNorm(2, 6)]
)
@pytest.mark.parametrize("activation", [nn.Identity, nn.Tanh])
def test_noise_in_front_of_a_norm_over_its_structures_folds_before_it_or_is_refused(
    norm: nn.Module, activation: type[nn.Module]
) -> None:
    """No norm over the structures takes a factor of each; the layer before does, if nothing is between."""
    torch.manual_seed(0)
    model, x = (
        nn.Sequential(nn.Linear(5, 6), activation(), noise(6), norm, nn.Linear(6, 2)),
        torch.randn(3, 5),
    )
    if activation is nn.Tanh:
        assert_refused(model, x, "2")
        return
    folded = fold(model.eval(), x)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-5)  # float32 sums


def test_noise_behind_a_norm_folds_into_its_offsets_and_factors_or_into_what_follows() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), noise(6), nn.Linear(6, 2))
    folded = fold(model.eval(), x := torch.randn(3, 5))
    torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-5)  # float32 sums
    assert not noise_in(folded)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_noise_after_a_batch_norm_folds_with_and_without_factors(affine: bool, bias: bool) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6, affine=affine)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, bias=bias), norm, noise(6), nn.SiLU(), nn.Conv2d(6, 2, 1))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.uniform_(-1.0, 1.0)
    norm.running_var.uniform_(0.5, 2.0)
    if affine:
        assert_folds_at_all(model, torch.randn(2, 3, 6, 6))
    else:  # a BatchNorm without factors has nowhere to put θ, and SiLU lets none through
        assert_folds_or_is_refused(model, torch.randn(2, 3, 6, 6), "2")


def test_noise_after_a_batch_norm_without_factors_passes_a_relu() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False), noise(8), nn.ReLU(), nn.Conv2d(8, 2, 1)
    )
    assert_folds_at_all(model, torch.randn(2, 3, 6, 6))


def test_items_of_a_sequence_keep_their_names_and_numbered_ones_close_up() -> None:
    torch.manual_seed(0)
    items = [nn.Linear(4, 6), nn.Tanh(), noise(6), nn.Linear(6, 2)]
    names = ["before", "act", "gate", "after"]
    named = nn.Sequential(OrderedDict(zip(names, items, strict=True))).eval()
    x = torch.randn(3, 4)
    assert [name for name, _ in fold(named, x).named_children()] == ["before", "act", "after"]
    assert [name for name, _ in fold(nn.Sequential(*items).eval(), x).named_children()] == ["0", "1", "2"]


class Attention(nn.Module):
    """Two heads of size 3; noise on the heads by hand, before their projection or on the values."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.qkv, self.gate, self.out, self.place = nn.Linear(4, 18), noise(2, axis=1), nn.Linear(6, 4), place

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, 2, 3).permute(2, 0, 3, 1, 4)
        v = self.gate(v) if self.place == "values" else v
        mixed = F.scaled_dot_product_attention(q, k, v)
        mixed = self.gate(mixed) if self.place == "heads" else mixed
        answer: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return answer


@pytest.mark.parametrize("place", ["values", "heads"])
def test_noise_on_heads_folds_into_their_projection(place: str) -> None:
    torch.manual_seed(0)
    model, x = Attention(place).eval(), torch.randn(2, 5, 4)
    folded = fold(model, x)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-5)  # float32 sums
    assert not noise_in(folded)


@pytest.mark.parametrize("parametrization", [weight_norm, spectral_norm, orthogonal])
@pytest.mark.parametrize("which", [0, 3])
def test_beside_a_parametrized_layer_the_noise_folds_into_the_plain_one(
    parametrization: Callable[[nn.Module], nn.Module], which: int
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), noise(6), nn.ReLU(), nn.Linear(6, 3)).eval()
    parametrization(model[which])
    x = torch.randn(3, 4)
    folded = fold(model, x)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-5)  # float32 sums
    assert not noise_in(folded)


class TiedAutoencoder(nn.Module):
    """Decodes with the weights it encoded with, so that no factor fits into them."""

    def __init__(self) -> None:
        super().__init__()
        self.e1, self.gate, self.e2 = nn.Linear(20, 12), noise(12), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        z = self.e2(self.gate(torch.tanh(self.e1(x))))
        h = torch.tanh(F.linear(z, self.e2.weight.t()))
        return F.linear(h, self.e1.weight.t())


class TiedInserted(nn.Module):
    """The same; its noise is put in by insert_noise."""

    def __init__(self) -> None:
        super().__init__()
        self.e1, self.e2 = nn.Linear(20, 32), nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        z = self.e2(F.relu(self.e1(x)))
        return F.linear(F.relu(F.linear(z, self.e2.weight.t())), self.e1.weight.t())


class WeightUsedTwice(nn.Module):
    """The layer that reads the noise also reads, without it, something else."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Linear(4, 6), noise(6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        answer: Tensor = self.last(self.gate(h)) + self.last(h)
        return answer


class PenalisedWeight(nn.Module):
    """The answer holds the norm of the weights, which folding would change."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Linear(4, 6), noise(6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.last(self.gate(torch.tanh(self.first(x)))) + self.last.weight.square().sum()
        return answer


WRONG: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "tied": (TiedAutoencoder, (4, 20)),
    "a layer called twice": (WeightUsedTwice, (4, 4)),
    "a penalty": (PenalisedWeight, (4, 4)),
    "noise on positions": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), noise(3), nn.Linear(3, 2)),
        (5, 3, 4),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_would_be_folded_wrongly_is_refused(case: str) -> None:
    torch.manual_seed(0)
    model, x = WRONG[case][0]().eval(), torch.randn(WRONG[case][1])
    with pytest.raises((NotFoldableError, SurgeryError), match="fold"):
        fold(model, x)


def test_without_an_example_what_would_be_folded_wrongly_is_refused_too() -> None:
    """insert_noise has put the noise in and knows an example."""
    torch.manual_seed(0)
    model = insert_noise(TiedInserted().eval(), x := torch.randn(4, 20))
    with torch.no_grad():
        for layer in noise_layers(model).values():
            layer.mu.uniform_(-2.0, -0.5)
    try:
        folded = fold(model)
    except (NotFoldableError, SurgeryError):
        return
    torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-5)  # float32 sums


def test_noise_by_hand_needs_an_example_and_says_so() -> None:
    model = nn.Sequential(nn.Linear(4, 6), noise(6), nn.ReLU(), nn.Linear(6, 2))
    with pytest.raises(ValueError, match="example_inputs"):
        fold(model)


def test_two_layers_of_which_one_can_not_be_folded_leave_the_model_and_name_it() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), noise(6), nn.Tanh(), noise(6), nn.LayerNorm(6), nn.Linear(6, 2))
    assert_refused(model, torch.randn(3, 4), "3")


def noise_in(model: nn.Module) -> bool:
    return any(isinstance(module, MultiplicativeNoise) for module in model.modules())


def assert_folds_at_all(model: nn.Module, x: Tensor) -> None:
    """Without compacting, which a wanted offset of a norm may keep from removing anything."""
    folded = fold(model.eval(), x)
    assert not noise_in(folded)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-5)  # float32 sums


def assert_folds_or_is_refused(model: nn.Module, x: Tensor, name: str) -> None:
    refusal = f"'{name}'"
    try:
        assert_folds_at_all(model, x)
    except NotFoldableError as error:
        refusal = str(error)
    assert f"'{name}'" in refusal
