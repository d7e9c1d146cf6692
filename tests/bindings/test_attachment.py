"""Noise leaves its layer what and where it is: type, name, keys, copies, and what torch does with it."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm
from torch.nn.utils.parametrize import register_parametrization

from bmrs_torch import MultiplicativeNoise, compact, insert_noise, noise_layers


class Doubled(nn.Module):
    """A parametrization of one's own."""

    def forward(self, weight: Tensor) -> Tensor:
        return 2.0 * weight


def doubled(layer: nn.Module) -> nn.Module:
    return register_parametrization(layer, "weight", Doubled())


class OwnLinear(nn.Linear):
    """A subclass that a forward method may look for."""


LAYERS: dict[str, tuple[Callable[[], nn.Sequential], tuple[int, ...]]] = {
    "Linear": (lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), (3, 4)),
    "Linear on tokens": (lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), (3, 5, 4)),
    "OwnLinear": (lambda: nn.Sequential(OwnLinear(4, 6), nn.ReLU(), nn.Linear(6, 2)), (3, 4)),
    "Conv1d": (lambda: nn.Sequential(nn.Conv1d(4, 6, 3), nn.ReLU(), nn.Conv1d(6, 2, 1)), (2, 4, 7)),
    "Conv2d": (lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 1)), (2, 4, 5, 5)),
    "ConvTranspose2d": (
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 1)),
        (2, 4, 5, 5),
    ),
}
PARAMETRIZATIONS: dict[str, Callable[[nn.Module], Any]] = {
    "plain": lambda layer: layer,
    "weight_norm": weight_norm,
    "spectral_norm": spectral_norm,
    "orthogonal": orthogonal,
    "of one's own": doubled,
}


def inputs(kind: str) -> Tensor:
    return torch.randn(LAYERS[kind][1], generator=torch.Generator().manual_seed(0))


def noisy(kind: str, parametrization: str = "plain") -> nn.Sequential:
    """Noise of other than its first values after the first layer; one structure masked; in evaluation."""
    torch.manual_seed(0)
    model = LAYERS[kind][0]().eval()
    PARAMETRIZATIONS[parametrization](model[0])
    insert_noise(model, inputs(kind), where="hidden")
    randomize(model)
    return model


def randomize(model: nn.Module) -> None:
    with torch.no_grad():
        for layer in noise_layers(model).values():
            layer.mu.uniform_(-2.0, 0.0)
            layer.mask[1] = 0


def other_module_names(model: nn.Module) -> list[str]:
    """Names of all modules but the noise layers, in their order."""
    return [name for name, m in model.named_modules() if not isinstance(m, MultiplicativeNoise)]


def averaged(model: nn.Module) -> nn.Module:
    average: nn.Module = torch.optim.swa_utils.AveragedModel(model).module
    return average


def pickled(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    pickle.dump(model, file)
    file.seek(0)
    loaded: nn.Module = pickle.load(file)
    return loaded


def saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


COPIES = [copy.deepcopy, averaged]
COPIES_OF_UNPARAMETRIZED = [*COPIES, pickled, saved]  # torch refuses to pickle parametrized layers


@pytest.mark.parametrize("kind", LAYERS)
class TestTheLayerStaysWhatItIs:
    def test_itself_its_type_and_its_parameters(self, kind: str) -> None:
        model = LAYERS[kind][0]()
        layers, parameters = list(model), dict(model.named_parameters())
        types = [type(layer) for layer in layers]
        insert_noise(model, inputs(kind), where="0")
        assert [type(layer) for layer in model] == types
        assert all(now is before for now, before in zip(model, layers, strict=True))
        assert all(model.get_parameter(name) is parameter for name, parameter in parameters.items())
        assert isinstance(model[0].noise, MultiplicativeNoise)

    def test_the_other_modules_keep_names_and_order_and_the_noise_follows_its_layer(self, kind: str) -> None:
        model = LAYERS[kind][0]()
        before = [name for name, _ in model.named_modules()]
        insert_noise(model, inputs(kind), where="0")
        assert other_module_names(model) == before
        names = [name for name, _ in model.named_modules()]
        assert names[names.index("0") + 1] == "0.noise"
        assert list(noise_layers(model)) == ["0.noise"]

    def test_the_state_has_the_plain_keys_in_their_order_and_those_of_the_noise(self, kind: str) -> None:
        model = LAYERS[kind][0]()
        plain = list(model.state_dict())
        insert_noise(model, inputs(kind), where="0")
        noise = {f"0.noise.{key}" for key in ("mu", "log_sigma", "mask")}
        assert [key for key in model.state_dict() if key not in noise] == plain
        assert noise <= model.state_dict().keys()

    def test_a_checkpoint_of_the_plain_network_loads(self, kind: str) -> None:
        torch.manual_seed(1)
        checkpoint = LAYERS[kind][0]().state_dict()
        model = noisy(kind)
        noise_before = {
            key: value.clone() for key, value in noise_layers(model)["0.noise"].state_dict().items()
        }
        loaded = model.load_state_dict(checkpoint, strict=False)
        assert loaded.unexpected_keys == []
        assert all(key.startswith("0.noise.") for key in loaded.missing_keys)
        assert all(torch.equal(model.state_dict()[key], value) for key, value in checkpoint.items())
        noise = noise_layers(model)["0.noise"].state_dict()
        assert all(torch.equal(noise[key], value) for key, value in noise_before.items())

    @pytest.mark.parametrize("copied", COPIES_OF_UNPARAMETRIZED, ids=lambda function: function.__name__)
    def test_a_copy_answers_the_same_and_is_one_of_its_own(self, kind: str, copied: Any) -> None:
        model, x = noisy(kind), inputs(kind)
        answer = model(x)
        other = copied(model)
        assert torch.equal(other(x), answer)
        with torch.no_grad():
            noise_layers(other)["0.noise"].mu.fill_(-5.0)
        assert not torch.equal(other(x), answer)
        assert torch.equal(model(x), answer)

    def test_compact_shrinks_layer_and_noise_and_keeps_the_type(self, kind: str) -> None:
        model, x = noisy(kind), inputs(kind)
        smaller = compact(model, x)
        assert [type(layer) for layer in smaller] == [type(layer) for layer in model]
        assert noise_layers(smaller)["0.noise"].num_structures == 5
        torch.testing.assert_close(smaller(x), model(x))  # float32 sums of a few terms in another order


@pytest.mark.parametrize("kind", ["Linear", "Conv1d", "Conv2d", "ConvTranspose2d"])
@pytest.mark.parametrize("parametrization", [name for name in PARAMETRIZATIONS if name != "plain"])
class TestParametrizedLayers:
    def test_the_noise_multiplies_what_the_parametrized_layer_gives(
        self, kind: str, parametrization: str
    ) -> None:
        model, x = noisy(kind, parametrization), inputs(kind)
        torch.manual_seed(0)
        plain = LAYERS[kind][0]().eval()
        PARAMETRIZATIONS[parametrization](plain[0])
        scale = noise_layers(model)["0.noise"].expected_noise().float()
        h = plain[0](x)
        expected = plain[1:](h * scale.view(-1, *[1] * (h.ndim - 2)))
        torch.testing.assert_close(model(x), expected)

    @pytest.mark.parametrize("copied", COPIES, ids=lambda function: function.__name__)
    def test_a_copy_answers_the_same(self, kind: str, parametrization: str, copied: Any) -> None:
        model, x = noisy(kind, parametrization), inputs(kind)
        other = copied(model)
        assert torch.equal(other(x), model(x))
        assert list(noise_layers(other)) == ["0.noise"]
        with torch.no_grad():
            noise_layers(other)["0.noise"].mu.fill_(-5.0)
        assert not torch.equal(other(x), model(x))

    def test_a_copy_of_a_copy_trains_with_noise(self, kind: str, parametrization: str) -> None:
        model, x = noisy(kind, parametrization), inputs(kind)
        other = copy.deepcopy(copy.deepcopy(model)).train()
        other(x).square().sum().backward()
        noise = noise_layers(other)["0.noise"]
        assert noise.mu.grad is not None
        assert bool(noise.mu.grad[0] != 0)
        assert noise_layers(model)["0.noise"].mu.grad is None

    def test_the_state_goes_from_one_to_another(self, kind: str, parametrization: str) -> None:
        model, x = noisy(kind, parametrization), inputs(kind)
        torch.manual_seed(1)
        other = LAYERS[kind][0]().eval()
        PARAMETRIZATIONS[parametrization](other[0])
        plain = list(other.state_dict())
        insert_noise(other, x, where="hidden")
        assert [key for key in other.state_dict() if not key.startswith("0.noise.")] == plain
        other.load_state_dict(model.state_dict())
        assert torch.equal(other(x), model(x))


class Looking(nn.Module):
    """A forward method that asks its layers for more than an output."""

    def __init__(self, look: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)])
        self.look = look

    def forward(self, x: Tensor) -> Tensor:
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if self.look(layer) and number < 2:
                x = x.relu()
        return x


LOOKS: dict[str, Callable[[Any], bool]] = {
    "isinstance": lambda layer: isinstance(layer, nn.Linear),
    "type is": lambda layer: type(layer) is nn.Linear,
    "name of the type": lambda layer: type(layer).__name__ == "Linear",
    "in": lambda layer: type(layer) in {nn.Linear, nn.Conv2d},
    "attribute": lambda layer: layer.out_features in (6, 2),
    "own dictionary": lambda layer: "in_features" in vars(layer),
    "first parameter": lambda layer: next(iter(layer.named_parameters()))[0] == "weight",
    "dtype": lambda layer: layer.weight.dtype == torch.float32,
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_forward_method_sees_the_layer_that_it_always_saw(look: str) -> None:
    torch.manual_seed(0)
    model, x = Looking(LOOKS[look]).eval(), torch.randn(3, 4)
    assert all(LOOKS[look](layer) for layer in model.layers)
    h = x
    insert_noise(model, x, where="hidden")
    randomize(model)
    for number, layer in enumerate(model.layers):
        h = F.linear(h, layer.get_parameter("weight"), layer.get_parameter("bias"))
        if number < 2:
            h = (h * noise_layers(model)[f"layers.{number}.noise"].expected_noise().float()).relu()
    torch.testing.assert_close(model(x), h)


def test_init_functions_and_hooks_of_the_users_see_their_layers() -> None:
    model, x = LAYERS["Linear"][0]().eval(), inputs("Linear")
    calls: list[str] = []
    model[0].register_forward_hook(lambda *_: calls.append("hook"))
    model[0].register_forward_pre_hook(lambda *_: calls.append("pre-hook"))
    insert_noise(model, x)
    calls.clear()
    model(x)
    assert calls == ["pre-hook", "hook"]
    seen: list[nn.Module] = []
    model.apply(lambda module: seen.append(module) if isinstance(module, nn.Linear) else None)
    assert seen == [model[0], model[2]]


class Attention(nn.Module):
    """Two heads of size 3 over tokens: their noise lies on the input of `out`, in blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.qkv, self.out, self.last = 2, nn.Linear(4, 18), nn.Linear(6, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, 3).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        answer: Tensor = self.last(torch.relu(self.out(mixed)))
        return answer


class TestNoiseOnAnInput:
    """What holds for noise after a layer holds for noise before one, of blocks or not."""

    def noisy(self) -> tuple[Attention, Tensor]:
        torch.manual_seed(0)
        model, x = Attention().eval(), torch.randn(2, 5, 4)
        insert_noise(model, x, where="heads")
        assert list(noise_layers(model)) == ["out.noise"]
        randomize(model)
        return model, x

    def test_type_keys_and_a_plain_checkpoint(self) -> None:
        plain = Attention().state_dict()
        model, _ = self.noisy()
        assert type(model.out) is nn.Linear
        assert [key for key in model.state_dict() if not key.startswith("out.noise.")] == list(plain)
        assert model.load_state_dict(plain, strict=False).unexpected_keys == []

    @pytest.mark.parametrize("copied", COPIES_OF_UNPARAMETRIZED, ids=lambda function: function.__name__)
    def test_a_copy_answers_the_same_and_is_one_of_its_own(self, copied: Any) -> None:
        model, x = self.noisy()
        other = copied(model)
        assert torch.equal(other(x), model(x))
        with torch.no_grad():
            noise_layers(other)["out.noise"].mu.fill_(-5.0)
        assert not torch.equal(other(x), model(x))

    def test_a_closed_head_is_a_head_less(self) -> None:
        model, x = self.noisy()
        smaller: Any = compact(model, x)
        assert (smaller.heads, smaller.qkv.out_features, smaller.out.in_features) == (1, 9, 3)
        torch.testing.assert_close(smaller(x), model(x))  # float32 sums


class Stream(nn.Module):
    """Three layers add to one stream of six channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.last = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = x + torch.tanh(self.first(x))
        answer: Tensor = self.last(x + torch.tanh(self.second(x)))
        return answer


@pytest.mark.parametrize("copied", COPIES_OF_UNPARAMETRIZED, ids=lambda function: function.__name__)
def test_noise_that_layers_share_is_shared_in_a_copy(copied: Any) -> None:
    torch.manual_seed(0)
    model, x = Stream().eval(), torch.randn(3, 4)
    insert_noise(model, x, where="streams")
    randomize(model)
    other: Any = copied(model)
    assert other.stem.noise is other.first.noise is other.second.noise
    assert len(noise_layers(other)) == len(noise_layers(model)) == 1
    assert torch.equal(other(x), model(x))


@pytest.mark.parametrize("build", [lambda: (noisy("Conv2d"), inputs("Conv2d")), TestNoiseOnAnInput().noisy])
def test_compiled_whole_it_answers_the_same(build: Callable[[], tuple[nn.Module, Tensor]]) -> None:
    model, x = build()
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), model(x))
    torch._dynamo.reset()


class TestTorchsTransformers:
    """Their fused operation takes the layers' weights and would leave the noise out, or drop it later."""

    ACTIVATIONS = ("relu", "gelu")

    def noisy(self, activation: str, norm_first: bool = False) -> tuple[nn.TransformerEncoderLayer, Tensor]:
        torch.manual_seed(0)
        model = nn.TransformerEncoderLayer(
            8, 2, 12, batch_first=True, activation=activation, norm_first=norm_first
        ).eval()
        x = torch.randn(2, 5, 8)
        insert_noise(model, x, where="linear1")
        randomize(model)
        return model, x

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    @pytest.mark.parametrize("norm_first", [False, True])
    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_the_noise_is_in_the_answer(self, activation: str, norm_first: bool, mode: Any) -> None:
        model, x = self.noisy(activation, norm_first)
        slowly = model(x)  # with gradients torch takes the layers one by one
        with mode():
            torch.testing.assert_close(model(x), slowly)  # float32 sums in another order
            torch.testing.assert_close(copy.deepcopy(model)(x), slowly)
            noise_layers(model)["linear1.noise"].mask.zero_()
            assert not torch.allclose(model(x), slowly, atol=1e-3)

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_what_torch_knows_of_the_activation_stays(self, activation: str) -> None:
        plain = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, activation=activation)
        model, _ = self.noisy(activation)
        assert model.activation_relu_or_gelu == plain.activation_relu_or_gelu

    def test_compiled_the_noise_is_in_the_answer(self) -> None:
        model, x = self.noisy("relu")
        torch._dynamo.reset()
        with torch.no_grad():
            torch.testing.assert_close(torch.compile(model, backend="eager")(x), model(x))
        torch._dynamo.reset()

    @pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
    @pytest.mark.parametrize("ending", [5, 3])
    def test_a_stack_of_them_with_padding_answers_as_slowly(self, ending: int) -> None:
        """With padding at the end torch packs the tokens into a nested tensor before the first layer."""
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        model, x = nn.TransformerEncoder(layer, 2).eval(), torch.randn(2, 5, 8)
        insert_noise(model, x, where="layers.*.linear1")
        randomize(model)
        padding = torch.zeros(2, 5, dtype=torch.bool)
        padding[1, ending:] = True
        slowly = model(x, src_key_padding_mask=padding)
        with torch.no_grad():
            quickly = model(x, src_key_padding_mask=padding)
        torch.testing.assert_close(quickly[~padding], slowly[~padding])  # what is padding is nobody's answer
