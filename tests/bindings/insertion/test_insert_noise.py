"""Where noise is inserted, where it isn't, and what is said about it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bmrs_torch import MultiplicativeNoise, compact, fold, insert_noise, noise_layers, plan_insertion
from tests.bindings.networks import LeNet5, conv_with_norm, images, mlp


def test_mlp_gets_noise_after_each_hidden_layer() -> None:
    layers = noise_layers(insert_noise(mlp(), images(2), share="batch", log_a=-10.0, log_b=-1.0))
    assert [(name, n.num_structures, n.axis) for name, n in layers.items()] == [
        ("1.noise", 20, -1),
        ("3.noise", 15, -1),
    ]
    assert {(n.share, n.log_a, n.log_b) for n in layers.values()} == {("batch", -10.0, -1.0)}


def test_lenet_gets_noise_on_filters_and_neurons() -> None:
    layers = noise_layers(insert_noise(LeNet5(), images(2)))
    assert [(name, n.num_structures, n.axis) for name, n in layers.items()] == [
        ("conv1.noise", 6, 1),
        ("conv2.noise", 16, 1),
        ("fc1.noise", 120, -1),
        ("fc2.noise", 84, -1),
    ]


def test_noise_multiplies_the_preactivation() -> None:
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    model = insert_noise(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), x)
    noise = noise_layers(model)["0.noise"]
    with torch.no_grad():
        noise.mu.fill_(-1.0)
    h = nn.functional.linear(x, model.get_parameter("0.weight"), model.get_parameter("0.bias"))
    expected = model.get_submodule("2")(torch.tanh(h * noise.expected_noise().float()))
    assert torch.equal(model.eval()(x), expected)


def test_noise_goes_after_a_batch_norm_that_follows_the_layer() -> None:
    assert list(noise_layers(insert_noise(conv_with_norm(), images(2)))) == ["1.noise", "5.noise"]


def test_the_plan_says_what_is_passed_over_and_touches_nothing() -> None:
    model = mlp()
    names = list(model.state_dict())
    assert str(plan_insertion(model, images(2))).splitlines() == [
        "1: noise on 20 structures (axis -1)",
        "3: noise on 15 structures (axis -1)",
        "5: none, it is the model's output",
    ]
    assert list(model.state_dict()) == names


def test_layers_that_have_noise_get_no_more() -> None:
    model = insert_noise(mlp(), images(2))
    with pytest.raises(ValueError, match="it already has noise"):
        insert_noise(model, images(2))


def test_a_layer_called_twice_has_one_noise_for_both_calls() -> None:
    shared = nn.Linear(4, 4)
    model, x = nn.Sequential(nn.Linear(3, 4), shared, shared, nn.Linear(4, 2)), torch.ones(2, 3)
    assert list(noise_layers(insert_noise(model, x, where="hidden"))) == ["0.noise", "1.noise"]


class Siamese(nn.Module):
    """Two inputs through the same layers."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.ReLU())
        self.head = nn.Linear(12, 2)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        answer: Tensor = self.head(torch.cat([self.trunk(t).mean((2, 3)) for t in (a, b)], 1))
        return answer


def test_layers_that_two_inputs_pass_shrink_and_fold() -> None:
    torch.manual_seed(0)
    x = (pixels(), pixels().flip(0))
    model = insert_noise(Siamese().eval(), x)
    assert list(noise_layers(model)) == ["trunk.0.noise", "trunk.2.noise"]
    for layer in noise_layers(model).values():
        layer.mask[:3] = 0
        nn.init.uniform_(layer.mu, -1.0, 0.0)
    folded: Any = fold(compact(model, x), x)
    assert (folded.trunk[2].out_channels, folded.head.in_features) == (3, 6)
    torch.testing.assert_close(folded(*x), model(*x), rtol=1e-5, atol=1e-6)  # float32 sums


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(3, 2)), "0: it is the model's output"),
        (nn.Sequential(nn.ReLU()), "it calls no Linear or Conv layer"),
        (nn.Linear(3, 2), r"no noise could be inserted into Linear: \(model\): it is the model's output"),
    ],
)
def test_nothing_to_insert_is_an_error(model: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        insert_noise(model, torch.ones(2, 3))


def test_a_forward_method_that_branches_on_values_is_followed_on_the_example() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(2, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.last(torch.relu(self.first(x))) if x.sum() > 0 else x
            return answer

    assert list(noise_layers(insert_noise(Branching(), torch.ones(2, 2)))) == ["first.noise"]


def test_noise_takes_dtype_and_mode_of_its_layer() -> None:
    model = insert_noise(mlp().double().eval(), images(2).double())
    assert all(n.mu.dtype == torch.float64 and not n.training for n in noise_layers(model).values())


def test_folding_undoes_the_insertion() -> None:
    model = LeNet5().eval()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    insert_noise(model, images(2))
    folded = fold(model, images(2))
    assert list(folded.state_dict()) == list(weights)
    assert not any(isinstance(m, MultiplicativeNoise) for m in folded.modules())
    torch.testing.assert_close(folded(images(2)), model(images(2)), rtol=1e-5, atol=1e-6)  # float32 sums


class Attention(nn.Module):
    """Four heads of size 2 over the pixels of an image, and neurons behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.embed = nn.Linear(3, 8)
        self.norm = nn.LayerNorm(8)
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)
        self.last = nn.Linear(8, 2)

    def attention(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, 2).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        answer: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return answer

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4:  # a branch that torch.fx can't follow
            raise ValueError("images are needed")
        x = self.embed(x.flatten(2).transpose(1, 2))
        x = x + self.attention(self.norm(x))
        x = x + self.down(torch.sigmoid(self.up(self.norm(x))))
        answer: Tensor = self.last(x.mean(1))
        return answer


def pixels() -> Tensor:
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("auto", [("out", 4, -2, True), ("down", 12, -1, True)]),
        ("heads", [("out", 4, -2, True)]),
        ("neurons", [("down", 12, -1, True)]),
        ("transformer", [("out", 4, -2, True), ("down", 12, -1, True)]),
        ("*p", [("up", 12, -1, False)]),
        (["up", "emb*"], [("embed", 8, -1, False), ("up", 12, -1, False)]),
        (lambda name, module: name == "norm" and isinstance(module, nn.LayerNorm), [("norm", 8, -1, False)]),
    ],
)
def test_where_chooses_the_places(where: object, expected: list[tuple[str, int, int, bool]]) -> None:
    plan = plan_insertion(Attention(), pixels(), where=where)  # type: ignore[arg-type]
    assert [(p.name, p.num_structures, p.axis, p.before) for p in plan.placements] == expected


def test_neurons_get_their_gate_where_0_stays_0() -> None:
    """After the sigmoid, since before it 0 would become ½."""
    plan = plan_insertion(Attention(), pixels())
    assert "down: noise on 12 structures (axis -1 of its input)" in str(plan)
    assert "out: noise on 4 structures of 2 (axis -2 of its input)" in str(plan)
    assert "LayerNorm normalises" in dict(plan.passed_over)["embed"]


def test_heads_and_neurons_shrink_and_fold_without_fx() -> None:
    torch.manual_seed(0)
    model = insert_noise(Attention(), pixels()).eval()
    for layer in noise_layers(model).values():
        layer.mask[1] = 0
        nn.init.uniform_(layer.mu, -1.0, 0.0)
    folded: Any = fold(compact(model, pixels()), pixels())
    assert (folded.heads, folded.qkv.out_features, folded.out.in_features) == (3, 18, 6)
    assert folded.down.in_features == 11
    torch.testing.assert_close(folded(pixels()), model(pixels()), rtol=1e-5, atol=1e-6)  # float32 sums
    assert not any(type(module).__module__.startswith("bmrs") for module in folded.modules())


def test_inserting_leaves_the_model_as_it_was_but_for_the_noise() -> None:
    model = Attention().double().train()
    model.up.requires_grad_(False)
    model.norm.eval()
    calls: list[str] = []
    model.up.register_forward_hook(lambda *_: calls.append("up"))
    insert_noise(model, pixels().double())
    layers = noise_layers(model)
    assert all(layer.mu.dtype == torch.float64 and layer.mu.requires_grad for layer in layers.values())
    assert model.training
    assert not model.norm.training
    assert not model.up.weight.requires_grad
    calls.clear()
    model.eval()(pixels().double())
    assert calls == ["up"]


class ResidualNetwork(nn.Module):
    """A stream that two blocks add to."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = self.unit(3, 6)
        self.first = nn.Sequential(self.unit(6, 4), nn.ReLU(), self.unit(4, 6))
        self.second = nn.Sequential(self.unit(6, 5), nn.ReLU(), self.unit(5, 6))
        self.last = nn.Linear(6, 2)

    @staticmethod
    def unit(before: int, after: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.first(x))
        x = torch.relu(x + self.second(x))
        answer: Tensor = self.last(x.mean((2, 3)))
        return answer


def test_by_default_residual_streams_get_no_noise() -> None:
    plan = plan_insertion(ResidualNetwork(), pixels())
    assert [p.name for p in plan.placements] == ["first.0.1", "second.0.1"]
    assert "where='streams'" in dict(plan.passed_over)["stem.0"]


@pytest.mark.parametrize("blocks", [1, 4, 13])
def test_streams_of_any_depth_get_one_noise_layer(blocks: int) -> None:
    """A stream narrower than the number of places that might do: these are tried in several runs."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
            self.outer = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6))

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x + self.outer(self.inner(x)))

    stem, last = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.ReLU()), nn.Conv2d(6, 2, 1)
    model = nn.Sequential(stem, *(Block() for _ in range(blocks)), last).eval()
    layers = noise_layers(insert_noise(model, pixels(), where="streams"))
    assert [layer.num_structures for layer in layers.values()] == [6] * (1 + blocks)


def test_a_norm_of_the_stream_among_the_branches_is_gated_with_them() -> None:
    """RepVGG's blocks: two convolutions and the stream itself, each with its BatchNorm, added up."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6))
            self.narrow = nn.Sequential(nn.Conv2d(6, 6, 1, bias=False), nn.BatchNorm2d(6))
            self.identity = nn.BatchNorm2d(6)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.wide(x) + self.narrow(x) + self.identity(x))

    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), Block(), Block(), nn.Conv2d(6, 2, 1)).eval()
    insert_noise(model, pixels(), where="streams")
    (layer,) = noise_layers(model).values()
    layer.mask[:3] = 0
    smaller: Any = compact(model, pixels())
    assert smaller[2].identity.num_features == 3
    torch.testing.assert_close(smaller(pixels()), model(pixels()), rtol=1e-5, atol=1e-6)  # float32 sums


def test_a_residual_stream_can_share_one_noise_layer() -> None:
    torch.manual_seed(0)
    model: Any = insert_noise(ResidualNetwork(), pixels(), where="streams").eval()
    assert [layer.num_structures for layer in noise_layers(model).values()] == [6, 4, 5]
    stream = model.stem[1].noise
    assert model.first[2][1].noise is stream
    assert model.second[2][1].noise is stream
    stream.mask[[0, 3]] = 0
    folded: Any = fold(compact(model, pixels()), pixels())
    assert folded.last.in_features == 4
    torch.testing.assert_close(folded(pixels()), model(pixels()), rtol=1e-5, atol=1e-6)  # float32 sums


def test_noise_after_every_batch_norm_as_in_the_paper() -> None:
    layers = noise_layers(insert_noise(ResidualNetwork(), pixels(), where="resnet"))
    assert [layer.num_structures for layer in layers.values()] == [6, 4, 6, 5, 6]


def test_where_every_hidden_layer_can_shrink_auto_puts_noise_after_each() -> None:
    for build in (mlp, LeNet5, conv_with_norm):
        hidden = plan_insertion(build(), images(2), where="hidden")
        assert plan_insertion(build(), images(2)).placements == hidden.placements


def test_fresh_norms_do_not_pass_for_harmless() -> None:
    """A BatchNorm without offsets maps 0 to 0, but training gives it some: the gate belongs after it."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    assert [p.name for p in plan_insertion(model, pixels()).placements] == ["2"]


def test_layers_that_take_heads_in_different_shapes_share_no_noise() -> None:
    """Talking heads: the heads' weights pass through a linear layer of their own, on another axis."""

    class TalkingHeads(Attention):
        def __init__(self) -> None:
            super().__init__()
            self.talk = nn.Linear(4, 4)

        def attention(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, 2).permute(2, 0, 3, 1, 4)
            scores = self.talk((q @ k.transpose(-2, -1)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            answer: Tensor = self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
            return answer

    assert "down" in [place.name for place in plan_insertion(TalkingHeads(), pixels()).placements]


def test_unknown_places_are_an_error() -> None:
    with pytest.raises(ValueError, match="where must be one of auto, streams"):
        insert_noise(mlp(), images(2), where="conv*")


def test_torch_transformers_do_not_bypass_the_noise() -> None:
    """Their fused operation in evaluation takes the layers' weights and would leave the noise out."""
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True).eval()
    x = torch.randn(2, 5, 8)
    insert_noise(model, x)
    assert list(noise_layers(model)) == ["linear1.noise"]
    with torch.no_grad():
        for layer in noise_layers(model).values():
            layer.mu.fill_(-2.0)
        fused = model(x)
        torch.testing.assert_close(fused, model.requires_grad_(True)(x))
        folded = fold(model, x)
        assert folded.activation_relu_or_gelu == 1
        torch.testing.assert_close(folded(x), fused)


@pytest.mark.parametrize("where", [3, None, [1, 2]])
def test_what_names_no_layers_is_a_type_error(where: Any) -> None:
    with pytest.raises(TypeError, match="where must be a preset"):
        insert_noise(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), torch.ones(2, 4), where=where)


def test_an_attention_module_says_that_it_holds_its_heads() -> None:
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 3))
    with pytest.raises(ValueError, match="MultiheadAttention can't hold fewer heads"):
        insert_noise(model, torch.ones(2, 3, 8), where="heads")
