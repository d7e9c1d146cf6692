"""What the example never reached and might read what is cut is named; experts keep what they share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bmrs_torch import MultiplicativeNoise, SurgeryError, compact, fold, noise_layers, plan_compaction
from bmrs_torch.surgery.verification import relative_difference


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Heads(nn.Module):
    """Two heads, of which the example takes the first."""

    def __init__(self, second: nn.Module, activation: Callable[[Tensor], Tensor] = torch.relu) -> None:
        super().__init__()
        self.first, self.gate = nn.Linear(6, 8), MultiplicativeNoise(8, axis=-1)
        self.head, self.second, self._activation = nn.Linear(8, 3), second, activation

    def forward(self, x: Tensor, task: str = "first") -> Tensor:
        hidden = self.gate(self._activation(self.first(x)))
        answer: Tensor = self.head(hidden) if task == "first" else self.second(hidden)
        return answer


class Weight(nn.Module):
    """A head without a layer of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix


READERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(8, 5),
    "norm": lambda: nn.LayerNorm(8),
    "recurrent": lambda: nn.GRU(8, 4),
    "own weights": Weight,
    "in a sequence": lambda: nn.Sequential(nn.ReLU(), nn.Linear(8, 2)),
    "convolution": lambda: nn.Conv1d(8, 2, 1),
    "of all pixels": lambda: nn.Linear(8 * 9, 2),
    "giving what is added": lambda: nn.Linear(5, 8),
}


def masked(second: nn.Module, activation: Callable[[Tensor], Tensor] = torch.relu) -> Heads:
    torch.manual_seed(0)
    model = Heads(second, activation).eval()
    model.gate.mask[:3] = 0
    return model


@pytest.mark.parametrize("kind", READERS)
def test_what_might_read_what_is_cut_is_an_error_that_names_it(kind: str) -> None:
    model = masked(READERS[kind]())
    before = {name: p.shape for name, p in model.named_parameters()}
    with pytest.raises(SurgeryError, match="never reached 'second"):
        compact(model, normal(4, 6))
    assert {name: p.shape for name, p in model.named_parameters()} == before


def test_one_may_go_on() -> None:
    model = masked(nn.Linear(8, 5))
    with pytest.warns(UserWarning, match="never reached 'second'"):
        assert compact(model, normal(4, 6), unreached="warn").head.in_features == 5
    with pytest.raises(ValueError, match="unreached must be 'error'"):
        compact(model, normal(4, 6), unreached="no")  # type: ignore[arg-type]


def test_what_can_not_read_it_is_no_obstacle() -> None:
    assert compact(masked(nn.Linear(7, 5)), normal(4, 6)).head.in_features == 5


def test_nothing_is_said_where_nothing_is_cut() -> None:
    model = masked(nn.Linear(8, 5))
    model.gate.mask.fill_(1)
    compact(model, normal(4, 6))


def test_a_factor_that_goes_into_what_is_reached_only_is_an_error() -> None:
    """After a sigmoid the noise can only go into what takes it."""
    model = masked(nn.Linear(8, 5), torch.sigmoid)
    with pytest.raises(SurgeryError, match=r"never reached 'second'.*folded into what takes them"):
        fold(model, normal(4, 6))
    with pytest.warns(UserWarning, match="never reached 'second'"):
        fold(model, normal(4, 6), unreached="warn")


def test_a_factor_that_goes_into_the_layer_before_is_named_too() -> None:
    """It is right for what takes the noisy structures, wrong for what would take them before the noise."""
    model = masked(nn.Linear(8, 5))
    model.first, model.gate = nn.Linear(6, 8), MultiplicativeNoise(8, axis=-1).eval()
    with pytest.warns(UserWarning, match=r"never reached 'second'.*folded into the layer before their noise"):
        folded = fold(model, normal(4, 6))
    with torch.no_grad():
        for task in ("first", "second"):
            torch.testing.assert_close(folded(normal(4, 6), task), model(normal(4, 6), task))


class Experts(nn.Module):
    """Each sample is sent to one expert, by its values."""

    def __init__(self, number: int, bias: float = 0.0) -> None:
        super().__init__()
        self.stem, self.gate, self.router = nn.Linear(6, 12), MultiplicativeNoise(12), nn.Linear(12, number)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(12, 10), MultiplicativeNoise(10), nn.ReLU(), nn.Linear(10, 3))
            for _ in range(number)
        )
        with torch.no_grad():
            self.router.bias[-1] += bias

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.gate(self.stem(x)))
        chosen = self.router(x).argmax(-1)
        out = x.new_zeros(len(x), 3)
        for number, expert in enumerate(self.experts):
            hit = (chosen == number).nonzero()[:, 0]
            if len(hit):
                out = out.index_put((hit,), expert(x[hit]))
        return out


def close_some(model: nn.Module) -> nn.Module:
    for layer in noise_layers(model).values():
        layer.mask[: layer.num_structures // 3] = 0
    return model.eval()


def test_experts_that_other_values_take_are_cut_too() -> None:
    torch.manual_seed(0)
    model = close_some(Experts(3))
    x = normal(64, 6)
    few = torch.cat([x[:1]] * 3 + [x[1:2] * 3])  # of which two experts get something
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        smaller = compact(model, few)
    assert relative_difference(model, smaller, x) < 1e-5


def test_what_experts_share_stays_where_one_was_never_reached_and_the_rest_goes() -> None:
    torch.manual_seed(0)
    model: Any = close_some(Experts(4, bias=-1e4))
    with pytest.warns(UserWarning, match=r"never reached 'experts\.3.*as experts do"):
        smaller = compact(model, normal(64, 6))
    assert smaller.gate.num_structures == 12
    assert [e[0].out_features for e in smaller.experts] == [7, 7, 7, 10]
    with torch.no_grad():
        for network in (model, smaller):
            network.router.bias[-1] += 2e4  # now everything goes to the expert that was never reached
    assert relative_difference(model, smaller, normal(64, 6, seed=1)) < 1e-5


def test_the_plan_says_what_experts_keep() -> None:
    torch.manual_seed(0)
    plan = plan_compaction(close_some(Experts(4, bias=-1e4)), normal(64, 6))
    assert "never reached 'experts.3" in str(plan)
    assert [len(layer.removed) for layer in plan.layers] == [0, 3, 3, 3, 0]


def test_routing_is_followed_as_the_noise_makes_it() -> None:
    """Gates as weak as E[θ] = 0.1 send samples to other experts than open ones do."""
    torch.manual_seed(0)
    model: Any = close_some(Experts(2))
    with torch.no_grad():
        model.gate.mu.copy_(torch.linspace(-6.0, 0.0, 12))
        model.gate.log_sigma.fill_(-3.0)
    x = normal(64, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        smaller = compact(model, x)
    assert relative_difference(model, smaller, normal(64, 6, seed=3)) < 1e-5
