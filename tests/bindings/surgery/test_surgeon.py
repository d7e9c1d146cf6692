"""The search for what can't go: it grows with the number of layers, and a few don't stop the rest."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bmrs_torch import MultiplicativeNoise, compact, noise_layers
from bmrs_torch.channels.network import follow
from bmrs_torch.surgery.plan_compaction import Selection
from bmrs_torch.surgery.surgeon import OUT_OF_TIME, Surgeon
from bmrs_torch.surgery.verification import Reference, relative_difference


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class Good(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.gate, self.b = nn.Linear(6, 8), MultiplicativeNoise(8), nn.Linear(8, 6)

    def inner(self, x: Tensor) -> Tensor:
        return torch.relu(x)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = x + 0.1 * self.b(self.inner(self.gate(self.a(x))))
        return answer


class Literal(Good):
    """Its forward method counts on the width, and raises."""

    def inner(self, x: Tensor) -> Tensor:
        return x.view(-1, 2, 4).tanh().reshape(-1, 8)


class Dividing(Good):
    """Its forward method counts on the width, and answers otherwise."""

    def inner(self, x: Tensor) -> Tensor:
        return torch.relu(x) / self.a.out_features


def network(*kinds: type[Good]) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(*(kind() for kind in kinds), nn.Linear(6, 2)).eval()
    for layer in noise_layers(model).values():
        layer.mask[:4] = 0
    return model


@pytest.mark.parametrize(("bad", "number"), [(Literal, 3), (Literal, 20), (Dividing, 3), (Dividing, 8)])
def test_all_that_can_go_goes(bad: type[Good], number: int) -> None:
    kinds: list[type[Good]] = [Good, bad]
    model = network(*kinds * number)
    with pytest.warns(UserWarning, match=f"{4 * number} masked structures are not removable"):
        smaller = compact(model, normal(3, 6))
    assert [layer.num_structures for layer in noise_layers(smaller).values()] == [4, 8] * number
    assert relative_difference(model, smaller, normal(5, 6)) < 1e-5


def test_one_trial_for_each_error_whatever_the_number_of_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [0]
    compare = Reference.compare

    def counted(self: Reference, other: nn.Module) -> Any:
        trials[0] += 1
        return compare(self, other)

    monkeypatch.setattr(Reference, "compare", counted)
    for number in (4, 40):
        trials[0] = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            compact(network(*[Good] * number, Literal, Literal, *[Good] * number), normal(3, 6))
        assert trials[0] == 3  # two errors, and all the rest


def test_layers_that_share_what_an_error_names_get_a_second_chance() -> None:
    class Pair(nn.Module):
        """Two gates meet in one module, of which one can't go."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(6, 8)
            self.good, self.bad = MultiplicativeNoise(8), MultiplicativeNoise(8)
            self.c, self.d = nn.Linear(8, 3), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.good(self.a(x)).relu(), self.bad(self.b(x)).relu()
            halves = b.view(-1, 2, 4)
            answer: Tensor = self.c(a.unsqueeze(-1).flatten(1)) + self.d(halves.flatten(1))
            return answer

    model = Pair().eval()
    for layer in noise_layers(model).values():
        layer.mask[:4] = 0
    with pytest.warns(UserWarning, match="4 masked"):
        smaller = compact(model, normal(3, 6))
    assert (smaller.good.num_structures, smaller.bad.num_structures) == (4, 8)


def test_the_time_limit_is_said_to_be_the_reason() -> None:
    model = network(Literal, Good, Literal)
    selection = Selection(follow(model, normal(3, 6)), noise_layers(model))
    surgeon = Surgeon(model, normal(3, 6), selection, time_limit=0.0)
    smaller, selection = surgeon.operate()
    plan = selection.plan(selection.removable)
    assert plan.removed == 0
    assert {reason for layer in plan.layers for _, reason in layer.retained} == {OUT_OF_TIME}
    with pytest.warns(UserWarning, match="time limit was reached"):
        compact(model, normal(3, 6), time_limit=0.0)
    assert relative_difference(model, smaller, normal(3, 6)) == 0


def test_what_goes_at_once_needs_no_time_limit() -> None:
    smaller: Any = compact(network(Good), normal(3, 6), time_limit=0.0)
    assert smaller[0].gate.num_structures == 4
