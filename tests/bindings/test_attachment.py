"""Noise on a layer leaves it what and where it is: type, place, names, copies, files, torch's fast path."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import register_parametrization

from bmrs_torch import MultiplicativeNoise, fold, insert_noise, noise_layers
from tests.bindings.gates import close, open_wide, scatter


@dataclass(frozen=True)
class Kind:
    """A layer, what reads it, and the shape of an input."""

    layer: Callable[[], nn.Module]
    reader: Callable[[], nn.Module]
    shape: tuple[int, ...]

    def network(self, parametrize: Callable[[nn.Module], nn.Module]) -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(parametrize(self.layer()), nn.ELU(), self.reader()).double().eval()

    def example(self) -> Tensor:
        return torch.randn(self.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


KINDS = {
    "linear": Kind(lambda: nn.Linear(4, 6), lambda: nn.Linear(6, 2), (3, 4)),
    "conv1d": Kind(lambda: nn.Conv1d(4, 6, 3), lambda: nn.Conv1d(6, 2, 1), (3, 4, 8)),
    "conv2d": Kind(lambda: nn.Conv2d(4, 6, 3), lambda: nn.Conv2d(6, 2, 1), (3, 4, 5, 5)),
    "transposed": Kind(lambda: nn.ConvTranspose2d(4, 6, 3), lambda: nn.Conv2d(6, 2, 1), (3, 4, 5, 5)),
}


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def own_parametrization(layer: nn.Module) -> nn.Module:
    register_parametrization(layer, "weight", Doubled())
    return layer


def plain(layer: nn.Module) -> nn.Module:
    return layer


PARAMETRIZATIONS: list[Callable[[Any], Any]] = [
    plain,
    parametrizations.weight_norm,
    parametrizations.spectral_norm,
    own_parametrization,
]

every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
every_parametrization = pytest.mark.parametrize(
    "parametrize", PARAMETRIZATIONS, ids=lambda function: function.__name__
)


def noisy(kind: Kind, parametrize: Callable[[Any], Any] = plain) -> nn.Sequential:
    model = kind.network(parametrize)
    insert_noise(model, kind.example(), where="hidden")
    close(scatter(model))
    return model


def without_noise(names: Any) -> list[str]:
    return [name for name in names if "noise" not in name.split(".")]


@every_kind
@every_parametrization
def test_a_layer_keeps_its_type_its_place_and_its_parameters(kind: Kind, parametrize: Any) -> None:
    model = kind.network(parametrize)
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    types = {name: type(module) for name, module in modules.items()}
    insert_noise(model, kind.example(), where="hidden")
    after = dict(model.named_modules())
    assert list(noise_layers(model)) == ["0.noise"]
    assert without_noise(after) == list(modules)
    assert all(after[name] is module and type(module) is types[name] for name, module in modules.items())
    assert without_noise(dict(model.named_parameters())) == list(parameters)
    assert all(model.get_parameter(name) is parameter for name, parameter in parameters.items())


@every_kind
@every_parametrization
@pytest.mark.parametrize("averaged", [False, True])
def test_a_copy_answers_alike_and_shares_nothing(kind: Kind, parametrize: Any, averaged: bool) -> None:
    model, x = noisy(kind, parametrize), kind.example()
    before = model(x)
    twin: nn.Module = (
        torch.optim.swa_utils.AveragedModel(model).module if averaged else copy.deepcopy(model)
    ).eval()
    assert torch.equal(twin(x), before)
    for layer in noise_layers(twin).values():
        layer.mask.zero_()
    assert not torch.equal(twin(x), before)
    assert torch.equal(model(x), before)


def by_pickle(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    pickle.dump(model, file)
    loaded: nn.Module = pickle.loads(file.getvalue())
    return loaded


def by_torch_save(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


@every_kind
@pytest.mark.parametrize("saved", [by_pickle, by_torch_save])
def test_what_is_read_from_a_file_answers_as_what_was_written(kind: Kind, saved: Any) -> None:
    model = noisy(kind)
    assert torch.equal(saved(model)(kind.example()), model(kind.example()))


@every_kind
@every_parametrization
def test_checkpoints_of_the_plain_network_fit_and_back(kind: Kind, parametrize: Any) -> None:
    plain_network, x = kind.network(parametrize), kind.example()
    with torch.no_grad():
        for parameter in plain_network.parameters():
            parameter.mul_(1.5)
    model = open_wide(noisy(kind, parametrize))
    assert without_noise(model.state_dict()) == list(plain_network.state_dict())
    missing, unexpected = model.load_state_dict(plain_network.state_dict(), strict=False)
    assert (set(missing), unexpected) == ({"0.noise.mu", "0.noise.log_sigma", "0.noise.mask"}, [])
    torch.testing.assert_close(model(x), plain_network(x), rtol=1e-3, atol=1e-4)  # E[θ] is 1 within 1e-5
    missing, unexpected = kind.network(parametrize).load_state_dict(model.state_dict(), strict=False)
    assert (missing, set(unexpected)) == ([], {"0.noise.mu", "0.noise.log_sigma", "0.noise.mask"})


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler's own making
        torch._dynamo.reset()
        yield
        torch._dynamo.reset()


@every_kind
@pytest.mark.usefixtures("_fresh_compiler")
def test_a_compiled_network_answers_alike(kind: Kind) -> None:
    model = noisy(kind)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert torch.equal(compiled(kind.example()), model(kind.example()))


class Asking(nn.Module):
    """A forward method that asks its layers what they are before it applies an activation."""

    def __init__(self, is_hidden: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 4)])
        self.is_hidden = is_hidden

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if self.is_hidden(layer) and i < 2:
                x = x.relu()
        return x


@pytest.mark.parametrize(
    "is_hidden",
    [
        lambda layer: isinstance(layer, nn.Linear),
        lambda layer: type(layer) is nn.Linear,
        lambda layer: isinstance(getattr(layer, "weight", None), nn.Parameter),
        lambda layer: layer.extra_repr().startswith("in_features"),
        lambda layer: not isinstance(layer, nn.Conv2d),
    ],
)
def test_a_forward_method_that_asks_its_layers_what_they_are_gets_the_same_answer(is_hidden: Any) -> None:
    torch.manual_seed(0)
    model, x = Asking(is_hidden).double().eval(), torch.randn(4, 8, dtype=torch.float64)
    before = model(x)
    insert_noise(model, x)
    torch.testing.assert_close(open_wide(model)(x), before, rtol=1e-3, atol=1e-4)  # E[θ] is 1 within 1e-5


class Heads(nn.Module):
    """Attention, whose output projection gets noise on its input, a head at a time.

    Parameters
    ----------
    residual : bool
        Whether it adds to its input; if not, the projection's outputs can have noise, too.
    """

    def __init__(self, residual: bool = True) -> None:
        super().__init__()
        self.residual, self.heads = residual, 4
        self.qkv, self.out, self.last = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, 2).permute(2, 0, 3, 1, 4)
        mixed = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        answer: Tensor = self.last(x + mixed if self.residual else mixed.tanh())
        return answer


BEFORE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "neurons": (lambda: nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 2)), (3, 4), "2"),
    "filters": (
        lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.Sigmoid(), nn.Conv2d(6, 2, 1)),
        (3, 4, 5, 5),
        "2",
    ),
    "heads": (Heads, (3, 5, 8), "out"),
}


@pytest.mark.parametrize(("build", "shape", "place"), BEFORE.values(), ids=BEFORE)
def test_noise_on_an_input_leaves_the_layer_what_it_is_too(build: Any, shape: Any, place: str) -> None:
    torch.manual_seed(0)
    model, x = build().double().eval(), torch.randn(shape, dtype=torch.float64)
    layer, keys = model.get_submodule(place), list(model.state_dict())
    insert_noise(model, x)
    assert f"{place}.noise" in noise_layers(model)
    assert model.get_submodule(place) is layer
    assert without_noise(model.state_dict()) == keys
    close(scatter(model))
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    assert torch.equal(by_pickle(model)(x), model(x))


def test_one_layer_can_have_noise_on_its_input_and_on_its_output() -> None:
    torch.manual_seed(0)
    model, x = Heads(residual=False).double().eval(), torch.randn(3, 5, 8, dtype=torch.float64)
    layer, keys, before = model.out, list(model.state_dict()), model(x)
    insert_noise(model, x)
    assert sorted(noise.num_structures for noise in noise_layers(model).values()) == [4, 8]
    assert model.out is layer
    assert [key for key in model.state_dict() if not key.endswith((".mu", ".log_sigma", ".mask"))] == keys
    torch.testing.assert_close(open_wide(model)(x), before, rtol=1e-3, atol=1e-4)  # E[θ] is 1 within 1e-5
    close(scatter(model))
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    torch.testing.assert_close(fold(model, x)(x), model(x), rtol=1e-9, atol=1e-9)  # float64 sums


@every_kind
def test_a_parametrization_that_can_not_be_followed_is_refused_or_kept(kind: Kind) -> None:
    model, x = kind.network(parametrizations.orthogonal), kind.example()
    keys, before = list(model.state_dict()), model(x)
    try:
        insert_noise(model, x, where="hidden")
    except ValueError:
        assert list(model.state_dict()) == keys
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    if noise_layers_of(model):
        torch.testing.assert_close(open_wide(model)(x), before, rtol=1e-3, atol=1e-4)  # as above
    else:
        assert torch.equal(model(x), before)


def noise_layers_of(model: nn.Module) -> list[MultiplicativeNoise]:
    return [module for module in model.modules() if isinstance(module, MultiplicativeNoise)]


class Stream(nn.Module):
    """Two layers that add to one stream and share the noise on it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        answer: Tensor = self.last((x + self.second(x)).relu())
        return answer


@pytest.mark.parametrize("copied", [copy.deepcopy, by_pickle, by_torch_save])
def test_noise_that_layers_share_is_shared_in_a_copy(copied: Any) -> None:
    torch.manual_seed(0)
    model, x = Stream().double().eval(), torch.randn(3, 4, dtype=torch.float64)
    insert_noise(model, x, where="streams")
    assert model.first.noise is model.second.noise
    close(scatter(model))
    twin = copied(model)
    assert twin.first.noise is twin.second.noise
    assert twin.first.noise is not model.first.noise
    assert torch.equal(twin(x), model(x))


@pytest.fixture
def _restored_fast_path() -> Iterator[None]:
    yield
    torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.usefixtures("_restored_fast_path")
def test_the_fast_path_of_torchs_transformer_leaves_no_noise_out(
    activation: str, norm_first: bool, depth: int
) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, 0.0, activation, batch_first=True, norm_first=norm_first)
    model: nn.Module = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False).eval()
    x = torch.randn(2, 5, 8)
    switches = [each.activation_relu_or_gelu for each in model.layers]  # type: ignore[union-attr]
    insert_noise(model, x, where="*.linear1")
    close(scatter(model))
    assert [each.activation_relu_or_gelu for each in model.layers] == switches  # type: ignore[union-attr]
    with torch.no_grad():
        fast = model(x)
        torch.backends.mha.set_fastpath_enabled(False)
        # Float32 sums of some tens of terms, in another order.
        torch.testing.assert_close(fast, model(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fast, fold(model, x)(x), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_samples_of_their_own_lengths_get_the_noise_too() -> None:
    """torch's encoder hands nested tensors to its layers in evaluation with padding at the end."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=True).eval()
    x = torch.randn(2, 5, 16)
    padding = torch.zeros(2, 5, dtype=torch.bool)
    padding[1, 3:] = True
    insert_noise(model, x, where=["layers.*.linear1"])
    for noise in noise_layers(model).values():
        noise.mask[::2] = 0
    with torch.no_grad():
        padded = model(x, src_key_padding_mask=padding)
    kept = model(x, src_key_padding_mask=padding)
    # With gradients torch takes no nested tensors; float32 sums in another order.
    torch.testing.assert_close(padded[~padding], kept.detach()[~padding], rtol=1e-4, atol=1e-5)
