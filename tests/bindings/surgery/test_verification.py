"""What surgery did is verified on more than the example: other values, batches, lengths, and in training."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrs_torch import MultiplicativeNoise, NotFoldableError, SurgeryError, compact, fold, noise_layers
from bmrs_torch.surgery.verification import Reference, difference


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gated(width: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, width), MultiplicativeNoise(width, axis=-1), nn.ReLU())


class Other(nn.Module):
    """A model that answers as another on the example, and otherwise elsewhere."""

    def __init__(self, model: nn.Module, elsewhere: Callable[[nn.Module, Tensor], bool]) -> None:
        super().__init__()
        self.model, self.elsewhere = model, elsewhere

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.model(x)
        return answer + 1.0 if self.elsewhere(self, x) else answer


EXAMPLE = normal(3, 7, 6)
ELSEWHERE: dict[str, Callable[[nn.Module, Tensor], bool]] = {
    "other values": lambda _, x: x.shape == EXAMPLE.shape and not x.equal(EXAMPLE),
    "another batch size": lambda _, x: x.shape[0] != EXAMPLE.shape[0],
    "another length": lambda _, x: x.shape[1] != EXAMPLE.shape[1],
    "training mode": lambda self, _: self.training,
}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_a_difference_elsewhere_than_on_the_example_is_found(kind: str) -> None:
    model = nn.Sequential(gated(), nn.Linear(8, 2)).eval()
    other = Other(model, ELSEWHERE[kind])
    assert Reference(model, EXAMPLE).compare(other).alike
    if kind == "other values":  # where the model runs at one batch size and length only

        class Fixed(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.reshape(3, 7, 6)

        model, other = nn.Sequential(Fixed(), model), Other(nn.Sequential(Fixed(), model), ELSEWHERE[kind])
    found = Reference(model, EXAMPLE, widely=True).compare(other)
    assert not found.alike
    assert any(word in found.where for word in kind.split()), found.where


def test_what_the_model_itself_can_not_run_is_passed_over() -> None:
    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.last = gated(), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            if x.shape != EXAMPLE.shape or self.training or x[0, 0, 0] != EXAMPLE[0, 0, 0]:
                raise RuntimeError("only the example, please")
            answer: Tensor = self.last(self.inner(x))
            return answer

    model: Any = Narrow().eval()
    model.inner[1].mask[:3] = 0
    with pytest.warns(UserWarning, match=r"can't be run .* in training mode \(RuntimeError: only the"):
        smaller = compact(model, EXAMPLE)
    assert smaller.last.in_features == 5


@dataclasses.dataclass
class Extra:
    features: Any


@pytest.mark.parametrize(
    "wrap",
    [
        Extra,
        lambda f: {f},
        lambda f: [{"features": (Extra(f),)}],
        lambda f: f > 0,
        lambda f: (f * 100).long(),
        lambda f: f.to(torch.complex64),
    ],
)
def test_an_output_keeps_its_shape_in_whatever_it_comes(wrap: Callable[[Tensor], Any]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = gated(), nn.Linear(8, 5), nn.Linear(5, 2)
            self.gate = MultiplicativeNoise(5, axis=-1)

        def forward(self, x: Tensor) -> Any:
            hidden = self.first(x)
            return self.last(self.gate(self.second(hidden))), wrap(hidden)

    model = Net().eval()
    for layer in noise_layers(model).values():
        layer.mask[:2] = 0
    with pytest.warns(UserWarning, match="it is the model's output"):
        smaller = compact(model, EXAMPLE)
    assert (smaller.second.in_features, smaller.second.out_features) == (8, 3)


def test_whole_numbers_and_truth_values_must_be_equal() -> None:
    numbers, same = torch.ones(3), torch.tensor([True, False, True, True])
    assert difference([numbers, same], [numbers, same.clone()]) == 0
    assert difference([numbers, same], [numbers, ~same]) == 1
    assert difference([same.long()], [same]) == 0
    assert difference([numbers], [same[:3]]) == float("inf")


class Deep(nn.Module):
    """In training its head is taken twice, once where the channels of the example's way lie."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)
        self.gate, self.second = MultiplicativeNoise(8), MultiplicativeNoise(8)

    def forward(self, x: Tensor) -> Any:
        hidden = self.gate(self.a(x)).relu()
        answer = self.head(self.second(self.b(hidden)).relu())
        return (answer, self.head(hidden)) if self.training else answer


class Targeted(nn.Module):
    """In training it wants targets, and takes a second head."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.gate = nn.Linear(6, 8), MultiplicativeNoise(8)
        self.b, self.aux = nn.Linear(8, 4), nn.Linear(8, 3)

    def forward(self, x: Tensor, target: Tensor | None = None) -> Tensor:
        hidden = self.gate(self.a(x)).relu()
        if not self.training:
            answer: Tensor = self.b(hidden)
            return answer
        assert target is not None
        loss: Tensor = F.mse_loss(self.b(hidden), target) + self.aux(hidden).square().mean()
        return loss


def test_a_path_that_training_takes_with_reached_weights_is_followed() -> None:
    model = Deep().eval()
    model.gate.mask[:3] = 0
    model.second.mask[1:5] = 0  # those that go in both: 1 and 2
    x = normal(2, 3, 4, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        smaller = compact(model, x)
    assert smaller.gate.num_structures == smaller.second.num_structures == 6
    with torch.no_grad():
        answers = [list(network.train()(x)) for network in (model, smaller)]
    assert [t.shape for t in answers[0]] == [t.shape for t in answers[1]]


def test_a_path_that_needs_targets_is_named_or_followed() -> None:
    model, x, target = Targeted().eval(), normal(4, 6), normal(4, 4)
    model.gate.mask[:3] = 0
    with pytest.raises(SurgeryError, match=r"never reached 'aux'.*training_step.*unreached='warn'"):
        compact(model, x)
    smaller = compact(model, x, training_step=lambda m: m(x, target))
    assert smaller.aux.in_features == 5
    folded = fold(smaller, x, training_step=lambda m: m(x, target))
    assert folded.train()(x, target).isfinite()


def test_a_training_step_that_fails_is_the_callers_to_see() -> None:
    model, x = Targeted().eval(), normal(4, 6)
    with pytest.raises(ZeroDivisionError):
        compact(model, x, training_step=lambda _: 1 / 0)


def test_training_that_draws_is_compared_by_its_shapes() -> None:
    class Drawing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.last = gated(), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.last(F.dropout(self.inner(x), 0.5, self.training))
            return answer

    model: Any = Drawing().eval()
    model.inner[1].mask[:3] = 0
    before = torch.get_rng_state()
    assert compact(model, EXAMPLE).last.in_features == 5
    assert torch.get_rng_state().equal(before)


def test_batch_norm_in_training_leaves_the_statistics_alone() -> None:
    layers = nn.Linear(6, 8), nn.BatchNorm1d(8), MultiplicativeNoise(8), nn.ReLU(), nn.Linear(8, 2)
    model: Any = nn.Sequential(*layers).eval()
    model[2].mask[:3] = 0
    smaller = compact(model, normal(1, 6))  # BatchNorm can't train on one sample: it gets two
    for network in (model, smaller):
        assert int(network[1].num_batches_tracked) == 0


def test_folding_goes_no_way_that_training_takes_back() -> None:
    """Into the convolution is exact by the first statistics, until BatchNorm normalises by measured ones."""
    norm = nn.BatchNorm2d(8, affine=False)
    layers = nn.Conv2d(3, 8, 3), norm, MultiplicativeNoise(8), nn.ReLU(), nn.Conv2d(8, 2, 1)
    model: Any = nn.Sequential(*layers).eval()
    model[2].mask[:3] = 0
    x = normal(2, 3, 6, 6)
    folded = fold(model, x)
    model.train()[2].eval()
    with torch.no_grad():
        torch.testing.assert_close(folded.train()(x), model(x))


def test_folding_is_verified_in_training_too() -> None:
    class Second(nn.Module):
        """Noise after an activation is folded into `last`; in training a product takes it too."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 2)
            self.gate = MultiplicativeNoise(8, axis=-1)

        def forward(self, x: Tensor) -> Any:
            hidden = self.gate(torch.tanh(self.first(x)))
            return (self.last(hidden), hidden.square().sum()) if self.training else self.last(hidden)

    model = Second().eval()
    with torch.no_grad():
        model.gate.mu.fill_(-1.0)
    with pytest.raises(NotFoldableError, match="nor into the inputs of 'last'"):
        fold(model, EXAMPLE)
